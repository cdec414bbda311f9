"""The time that lmft and Lightning add to a step of a loop by hand: a tiny model, one thread."""

from typing import Any

from benchmarks import made_up
from benchmarks.figures import Rounds, value, values_of
from benchmarks.session import Session
from benchmarks.workloads import OVERHEAD

COMMAND = "python -m benchmarks overhead"
NUM_STEPS = 250
LOOP = "a loop by hand"


def run(session: Session) -> None:
    """Measure the three."""
    made_up.write(session.folder, OVERHEAD.job, OVERHEAD.vocab_size, 20_000, 0, OVERHEAD.longest)
    steps = 8 if session.is_tiny else NUM_STEPS
    common: dict[str, Any] = {"workload": OVERHEAD.plain, "folder": str(session.folder), "steps": steps}
    sides = {
        name: session.side("suites.overhead:on_one_thread", function=function, given=common | more)
        for name, function, more in (
            (LOOP, "raw_loop:train", {"bf16": False}),
            ("plain Lightning", "raw_loop:lightning", {}),
            ("lmft", "ours:train", {"more": ["trainer.precision=32-true"]}),
        )
    }
    rounds = session.in_turns(sides)
    results = [
        added(rounds, name) for name in ("lmft", "plain Lightning") if rounds[name] and rounds[LOOP]
    ]
    results += [value([1e3 * each for each in values_of(rounds, LOOP, "step_s")], "ms", of=LOOP)]
    session.row(
        "Overhead", f"{OVERHEAD.name}, 4 × 32 tokens, one thread: time of a step", COMMAND, results
    )


def on_one_thread(function: str, given: dict[str, Any]) -> dict[str, float]:
    """Call a side with one thread of torch's."""
    import torch

    from benchmarks.process import call

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return call(function, given)
    finally:
        torch.set_num_threads(before)


def added(rounds: Rounds, side: str) -> dict[str, Any]:
    """Return the milliseconds that a side adds to a step of the loop."""
    pairs = zip(values_of(rounds, side, "step_s"), values_of(rounds, LOOP, "step_s"), strict=False)
    return value([1e3 * (ours - loop) for ours, loop in pairs], f"ms more than {LOOP}", of=side)
