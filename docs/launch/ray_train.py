"""One training on the GPUs of a Ray cluster, by Ray Train. The first argument is the number of GPUs.

    python docs/launch/ray_train.py 8 model=smollm2 data=files data.train=/shared/text.txt \\
        run.dir=/shared/runs run.name=first

With CPUS=1 in the environment the processes compute on CPUs.
"""

import os
import sys
from pathlib import Path
from typing import Any

from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer


def train(options: dict[str, Any]) -> None:
    """Run lmft.train in a worker, as torchrun would start it."""
    from lmft.train import main

    os.environ["GROUP_RANK"] = os.environ["NODE_RANK"]
    os.chdir(options["folder"])  # where paths begin
    try:
        main(options["arguments"])
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"lmft.train ended with exit code {ended.code}") from None


def launch(num_processes: int, arguments: list[str]) -> None:
    """Start a worker for each GPU, all on machines that have the same folders."""
    on_cpus = bool(os.environ.get("CPUS"))
    per_machine = int(os.environ.get("GPUS_PER_MACHINE", num_processes))
    shape = [
        f"trainer.devices={per_machine}",
        f"+trainer.num_nodes={num_processes // per_machine}",
        f"trainer.accelerator={'cpu' if on_cpus else 'gpu'}",
    ]
    options = {"arguments": ["trainer=fsdp2", *shape, *arguments], "folder": str(Path.cwd())}
    TorchTrainer(
        train,
        train_loop_config=options,
        torch_config=TorchConfig(backend="gloo" if on_cpus else "nccl"),
        scaling_config=ScalingConfig(num_workers=num_processes, use_gpu=not on_cpus),
        run_config=RunConfig(name="lmft", storage_path=str(Path.cwd() / "ray")),
    ).fit()


if __name__ == "__main__":
    launch(int(sys.argv[1]), sys.argv[2:])
