"""What a training has written for its report: facts.json and details.json."""

from typing import Any

FACTS = {
    "model": {
        "name": "distilbert/distilbert-base-uncased",
        "architecture": "DistilBertForMaskedLM",
        "model_type": "distilbert",
        "family": "masked",
        "from_scratch": False,
        "positions": 512,
        "vocabulary": 30522,
    },
    "parameters": {"total": 66985530, "trained": 1198530, "parts": []},
    "training": {
        "objective": "mlm",
        "optimizer": "AdamW",
        "learning_rate": 2e-5,
        "schedule": "linear",
        "warmup_steps": 117,
        "device": "cuda",
        "device_name": "NVIDIA H100 80GB HBM3",
        "num_devices": 8,
        "precision": "bf16-mixed",
        "batch_size": 64,
        "accumulate": 1,
        "examples_per_step": 512,
        "steps_per_epoch": 391,
        "steps": 1173,
        "epochs": 3.0,
    },
    "data": {
        "name": None,
        "train": "/a/very/long/path/to/some/folder/of/files/which/goes/on/and/on/reviews-*.jsonl.gz",
        "splits": {"train": {"documents": 25000, "tokens": 7300000, "examples": 57000}},
        "examples": "blocks",
        "block_size": 128,
        "tokens_per_epoch": 7300000,
    },
    "warnings": [{"name": "duplicates", "text": "812 of 4,096 sampled documents are copies", "fix": "leave them out"}],
}


def _compared(before: float, after: float, width: float, **more: Any) -> dict[str, Any]:
    change = round(after - before, 4)
    bounds = {"low": round(change - width, 4), "high": round(change + width, 4)}
    return {"targets": 4117, "before": before, "after": after, "change": change, **bounds, **more}


def _range(label: str, start: int, width: float = 0.1, **more: Any) -> dict[str, Any]:
    return {"label": label, "from": start, "to": start + 9, "documents": 90, **_compared(8.0, 6.0, width), **more}


DETAILS = {
    "version": 1,
    "which": "exported",
    "steps": {"before": 0, "after": 60},
    "interval": 0.95,
    "samples": 1000,
    "lines": ["better on 390 of 400 documents"],
    "overall": _compared(8.55, 6.12, 0.05),
    "texts": [
        {
            "name": "news",
            "weight": 1.0,
            **_compared(8.55, 6.12, 0.05),
            "documents": 400,
            "better": 390,
            "worse": 10,
            "by_frequency": [
                _range("special", 0, low=None, high=None),
                _range("never", 0),
                _range("10–99", 10),
            ],
            "by_position": [_range(f"{10 * number}–{10 * number + 9}", 10 * number) for number in range(6)],
            "by_length": None,
            "tokens": {
                "gained": [{"text": " park", "id": 1, "training_count": None, "nats": -31.2, **_compared(8, 6, 0)}],
                "lost": [],
            },
            "documents_changed": {
                "gained": [
                    {"number": 17, "text": "A <b>text</b> " * 14, "tokens": 230, "nats": -8, **_compared(8, 6, 0)}
                ],
                "lost": [],
            },
            "points": {"before": [8 + number / 40 for number in range(40)], "after": [6.0] * 40, "targets": [9] * 40},
        }
    ],
}
"""details.json of a run with one validation text."""
