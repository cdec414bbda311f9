"""Loss on all tokens of a chat, compared with loss on the answers only: epochs until a model answers correctly.

    python benchmarks/labels.py --model SMOLLM2_FOLDER [--chats FILE.jsonl] [--epochs 12] [--lr 2e-5]

The chats are a handful of questions with one answer each; every epoch is one step over all of them. After each epoch
the model answers the questions greedily. Prints, for both losses, the number of correct answers (the whole answer,
nothing before or after) by epoch, and the seconds of training.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path


def run(arguments: argparse.Namespace, folder: Path, train_on: str) -> list[int]:
    """Train; return the number of correct answers before training and after each epoch."""
    chats = [json.loads(line)["messages"] for line in Path(arguments.chats).read_text(encoding="utf-8").splitlines()]
    probes = ", ".join(f"{{chat: {json.dumps(chat[0]['content'])}}}" for chat in chats)
    command = [
        *(sys.executable, "-m", "lmft.train", "model=smollm2", f"model.name_or_path={arguments.model}", "data=chat"),
        *(f"data.train={arguments.chats}", f"data.validation={arguments.chats}", f"data.train_on={train_on}"),
        *("data.examples=lines", f"data.batch_size={len(chats)}", f"data.probes=[{probes}]"),
        *("model.generation.max_new_tokens=12", f"optimizer.lr={arguments.lr}", "scheduler=constant_with_warmup"),
        *("scheduler.warmup=0", f"trainer.max_epochs={arguments.epochs}", "checkpoint.keep_last=0"),
        *(f"data.cache_dir={folder / 'cache'}", f"run.dir={folder}", f"run.name={train_on}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    samples = [json.loads(line) for line in (folder / train_on / "samples.jsonl").read_text("utf-8").splitlines()]
    right = [0] * (arguments.epochs + 1)
    expected = {chat[0]["content"]: chat[1]["content"] for chat in chats}
    for sample in samples:
        if sample["stage"] != "after":
            right[sample["step"]] += sample["texts"]["greedy"].strip() == expected[sample["prompt"]]
    seconds = json.loads((folder / train_on / "metrics.json").read_text())["train"]["seconds"]
    print(f"{train_on:10} right by epoch: {right}  ({seconds:.0f} s of training)", flush=True)
    return right


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--chats", default=str(Path(__file__).with_name("spanish.jsonl")))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--lr", default="2e-5")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = {train_on: run(given, Path(name), train_on) for train_on in ("all", "assistant")}
    for train_on, right in found.items():
        first = next((epoch for epoch, count in enumerate(right) if count == max(right)), None)
        print(f"{train_on:10} most right: {max(right)}, first after epoch {first}")
