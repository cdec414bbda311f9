"""Loss on all tokens of a chat, or on the answers: epochs until a model answers. Needs --model.

The model is SmolLM2-135M-Instruct. The chats are the five questions of spanish.jsonl with one answer
each; an epoch is one step over all of them, at a constant learning rate of 5e-5. After each
epoch the model answers the questions greedily.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.session import Session

COMMAND = "python -m benchmarks answers --model FOLDER"
CHATS = Path(__file__).parents[1] / "spanish.jsonl"
NUM_EPOCHS = 20


def run(session: Session) -> None:
    """Train twice, and report how many answers are right after each epoch."""
    model = session.given.get("model")
    if not model:
        raise SystemExit("the suite answers needs --model FOLDER, of SmolLM2-135M-Instruct")
    for train_on in ("all", "assistant"):
        common: dict[str, Any] = {"model": model, "folder": str(session.folder), "train_on": train_on}
        found = session.in_turns({train_on: session.side("suites.answers:right", **common)})[train_on]
        if found:
            right = [int(found[0][str(epoch)]) for epoch in range(NUM_EPOCHS + 1)]
            last = {
                "value": right[-1],
                "unit": f"of {max(right)} right in the end",
                "rounds": len(found),
            }
            first = {"value": right.index(max(right)), "unit": "epochs until then", "rounds": len(found)}
            session.row("Answers", f"`data.train_on={train_on}`: {right}", COMMAND, [last, first])


def right(model: str, folder: str, train_on: str) -> dict[str, float]:
    """Train; return the number of right answers before training and after each epoch."""
    from lmft import api

    chats = [json.loads(line)["messages"] for line in CHATS.read_text("utf-8").splitlines()]
    probes = ", ".join(f"{{chat: {json.dumps(chat[0]['content'])}}}" for chat in chats)
    result = api.train(
        [
            *("model=smollm2", f"model.name_or_path={model}", "data=chat", f"data.train={CHATS}"),
            *(f"data.validation={CHATS}", f"data.train_on={train_on}", "data.examples=lines"),
            *(f"data.batch_size={len(chats)}", f"data.probes=[{probes}]", "optimizer.lr=5e-5"),
            *(
                "model.generation.max_new_tokens=12",
                "scheduler=constant_with_warmup",
                "scheduler.warmup=0",
            ),
            *(f"trainer.max_epochs={NUM_EPOCHS}", "checkpoint.keep_last=0", f"run.dir={folder}"),
            f"run.name={train_on}",
        ]
    )
    counts = dict.fromkeys(map(str, range(NUM_EPOCHS + 1)), 0.0)
    expected = {chat[0]["content"]: chat[1]["content"] for chat in chats}
    for line in (result.folder / "samples.jsonl").read_text("utf-8").splitlines():
        sample = json.loads(line)
        if sample["stage"] != "after":
            counts[str(sample["step"])] += (
                sample["texts"]["greedy"].strip() == expected[sample["prompt"]]
            )
    return counts
