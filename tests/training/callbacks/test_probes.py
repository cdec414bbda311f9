import json
from types import SimpleNamespace

from torch import nn

from lmft.training.callbacks.probes import Probes


class Module(nn.Module):
    """Answers with how often it was asked."""

    asked = 0

    def __init__(self, rank=0):
        super().__init__()
        self.global_rank = rank
        self.model = nn.Linear(1, 1)

    def answer(self, prompts):
        return [self.probe(prompt) for prompt in prompts]

    def probe(self, prompt):
        self.asked += 1
        return {"prompt": prompt, "fills": [[{"token": f"é{self.asked}", "probability": 0.5}]]}


def trainer(fn, step):
    return SimpleNamespace(state=SimpleNamespace(fn=fn), global_step=step)


def test_answers_before_during_and_after(tmp_path):
    probes, module = Probes(["A [MASK].", "B [MASK]."], tmp_path / "samples.jsonl"), Module()
    probes.on_validation_end(trainer("validate", 0), module)
    probes.on_validation_end(trainer("fit", 7), module)
    probes.on_validation_end(trainer("validate", 9), module)
    probes.ask(module, 9, "after")
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text("utf-8").splitlines()]
    assert [(s["step"], s["stage"], s["prompt"], s["fills"][0][0]["token"]) for s in samples] == [
        (0, "before", "A [MASK].", "é1"),
        (0, "before", "B [MASK].", "é2"),
        (7, "validation", "A [MASK].", "é3"),
        (7, "validation", "B [MASK].", "é4"),
        (9, "validation", "A [MASK].", "é5"),
        (9, "validation", "B [MASK].", "é6"),
        (9, "after", "A [MASK].", "é7"),
        (9, "after", "B [MASK].", "é8"),
    ]
    assert [answer["fills"][0][0]["token"] for answer in probes.first] == ["é1", "é2"]
    assert [answer["fills"][0][0]["token"] for answer in probes.latest] == ["é7", "é8"]


def test_the_first_answers_survive_resuming(tmp_path):
    before, after, module = Probes(["A"], tmp_path / "a"), Probes(["A"], tmp_path / "b"), Module()
    before.ask(module, 0, "before")
    after.load_state_dict(before.state_dict())
    after.ask(module, 5, "validation")
    assert after.first == before.first != after.latest


def test_of_several_processes_one_asks(tmp_path):
    probes, module = Probes(["A"], tmp_path / "samples.jsonl"), Module(rank=1)
    probes.on_validation_end(trainer("fit", 3), module)
    assert module.asked == 0 and not probes.path.exists()


def test_of_processes_that_share_the_weights_all_answer_and_one_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("lmft.training.callbacks.probes.is_sharded", lambda model: True)
    probes, module = Probes(["A"], tmp_path / "samples.jsonl"), Module(rank=1)
    probes.on_validation_end(trainer("validate", 0), module)
    assert module.asked == 1 and not probes.path.exists()
    assert probes.first  # else this process alone would ask once more at the start of training
