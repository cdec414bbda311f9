"""Speed and memory of trainings, and their share of what the matrix products alone allow.

Peers get the same model, text and batch: transformers.Trainer as its examples call it, the same with the
settings that its documentation recommends for speed, a loop written by hand, and TRL's packing for
chats.
"""

from importlib.util import find_spec
from typing import Any

from benchmarks import made_up
from benchmarks.figures import Rounds, compared, rounded, value, values_of
from benchmarks.session import Session, Side
from benchmarks.workloads import Workload

COMMAND = "python -m benchmarks train"
SECTION = "Training"
CEILING = "its matrix products alone"
TRAINER = "the Trainer"
COMPILED = "lmft compiled"
OURS = {"lmft": "", COMPILED: ", model.compile=true"}


def run(session: Session) -> None:
    """Measure each training."""
    for workload in session.trainings:
        rounds = session.in_turns(sides(session, workload))
        for ours, setting in OURS.items():
            if not rounds.get(ours):
                continue
            others = [name for name in rounds if name not in OURS and name != CEILING]
            beside = {name: rounds[name] for name in (ours, *others)}
            speeds = [
                *compared(beside, "tokens_per_s", "tokens/s", ours),
                *best_of(beside, ours),
                *share(rounds, beside),
            ]
            session.row(SECTION, f"{workload.name}, bf16{setting}: tokens/s", COMMAND, speeds)
            if session.has_gpu or not session.in_process:
                memory = compared(beside, "peak_gb", "GB", ours)
                session.row(SECTION, f"{workload.name}{setting}: peak memory", COMMAND, memory)


def sides(session: Session, workload: Workload) -> dict[str, Side]:
    """Return all programs that do this training."""
    folder = session.folder / "".join(filter(str.isalnum, workload.name))
    folder.mkdir()
    num_tokens = workload.rows * workload.tokens * session.steps
    num_chats = 4 * workload.num_chats * session.steps
    made_up.write(folder, workload.job, workload.vocab_size, num_tokens, num_chats, workload.longest)
    common: dict[str, Any] = {"workload": workload.plain, "folder": str(folder), "steps": session.steps}
    bf16 = "trainer.precision=bf16-mixed"
    found = {"lmft": session.side("ours:train", more=[bf16], **common)}
    if not session.is_tiny:
        found[COMPILED] = session.side("ours:train", more=[bf16, "model.compile=true"], **common)
    for name, more in trainers(session, workload).items():
        found[name] = session.side("trainer:train", more=more, **common)
    if workload.job == "chats" and find_spec("trl"):
        found["TRL's packing"] = session.side("trl_packing:train", **common)
    if session.has_gpu:
        found["lmft without CUDA graphs"] = session.side(
            "ours:train", more=[bf16, "model.cuda_graphs=false"], **common
        )
    else:
        found["a loop by hand"] = session.side("raw_loop:train", **common)
    del common["steps"]
    found[CEILING] = session.side(
        "ceiling:products", seconds_each=0.0 if session.is_tiny else 0.05, **common
    )
    return found


def trainers(session: Session, workload: Workload) -> dict[str, dict[str, Any]]:
    """Return the settings of transformers.Trainer that are tried."""
    found: dict[str, dict[str, Any]] = {f"{TRAINER} in bf16": {}}
    if workload.job == "masked":
        found[f"{TRAINER} in its default float32"] = {"bf16": False}
    if workload.job == "chats":
        found[f"{TRAINER} with group_by_length"] = {"train_sampling_strategy": "group_by_length"}
    else:
        workers = 4 if session.has_gpu else 0
        tuned = {"torch_compile": not session.is_tiny, "dataloader_num_workers": workers}
        found[f"{TRAINER} compiled"] = tuned
    return found


def best_of(rounds: Rounds, ours: str) -> list[dict[str, Any]]:
    """Return the ratio to the fastest of the Trainer's settings, if there were several."""
    speeds = {
        name: values_of(rounds, name, "tokens_per_s") for name in rounds if name.startswith(TRAINER)
    }
    speeds = {name: values for name, values in speeds.items() if values}
    if len(speeds) < 2:
        return []
    best = max(speeds, key=lambda name: value(speeds[name], "")["value"])
    chosen = {ours: rounds[ours], f"{TRAINER}'s best of its settings ({best})": rounds[best]}
    return list(compared(chosen, "tokens_per_s", "", ours))[1:]


def share(rounds: Rounds, beside: Rounds) -> list[dict[str, Any]]:
    """Return the share of the ceiling's tokens per second that each of some sides reaches."""
    ceiling = values_of(rounds, CEILING, "tokens_per_s")
    if not ceiling:
        return []
    found = []
    for name in beside:
        speeds = values_of(rounds, name, "tokens_per_s")
        shares = [100 * a / b for a, b in zip(speeds, ceiling, strict=False)]
        if shares:
            found.append(value(shares, f"% of {CEILING}", of=name))
    gflops = values_of(rounds, CEILING, "gflops")
    return [
        *found,
        {"value": rounded(max(gflops)), "unit": "GFLOP/s", "of": CEILING, "rounds": len(gflops)},
    ]
