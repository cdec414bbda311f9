"""The facts of a training, found before its first step, and warnings of likely mistakes."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

from lmft.assembly.optimizer import grouping_of, make_optimizer
from lmft.assembly.parts import Parts
from lmft.config.schema import build
from lmft.data.examples.mixture import MixedExamples
from lmft.models.loading.positions import max_positions
from lmft.models.parameters import count_parameters
from lmft.modules.base import LanguageModel
from lmft.preflight import habits, labels, overlap, repeats, settings, sizes
from lmft.preflight.finding import Finding
from lmft.preflight.sample import Text
from lmft.reporting.results import environment
from lmft.training.callbacks.averaging import averages_weights
from lmft.training.fully_sharded import FullySharded
from lmft.training.groups import parameter_groups
from lmft.training.micro_batches import free_gb
from lmft.training.optimizer import ScheduleConfig


def find_facts(
    parts: Parts,
    module: LanguageModel,
    trainer: Trainer,
    folder: Path,
    choices: Mapping[str, str | None],
) -> dict[str, Any]:
    """Return the facts of a training as plain data, with its warnings as `warnings`.

    Args:
        parts: the training.
        module: its module.
        trainer: its Trainer.
        folder: the run's, which need not exist.
        choices: group → name of its YAML; empty if they are not known.
    """
    parameters = count_parameters(module, module.model, module.adapted is not None)
    facts: dict[str, Any] = {
        "model": _model_facts(parts, module),
        "parameters": parameters,
        "training": _training_facts(parts, trainer, choices.get("objective")),
        "data": _data_facts(parts, trainer.world_size, choices.get("data")),
    }
    state = _state_bytes(parts, module, trainer.strategy.root_device)
    facts["disk"] = _disk_facts(parts, module, trainer, folder, facts, state)
    facts["memory"] = _memory_facts(module, trainer, state)
    findings = [*_findings_of_settings(parts, module, facts), *_findings_of_texts(parts, facts)]
    facts["warnings"] = [asdict(finding) for finding in findings]
    return facts


def _model_facts(parts: Parts, module: LanguageModel) -> dict[str, Any]:
    return {
        "name": parts.model.name,
        "architecture": type(module.model).__name__,
        "model_type": parts.hf_config.model_type,
        "family": parts.model.family,
        "from_scratch": parts.model.from_scratch,
        "positions": max_positions(parts.hf_config),
        "vocabulary": parts.vocabulary.size,
    }


def _training_facts(parts: Parts, trainer: Trainer, objective: str | None) -> dict[str, Any]:
    config = parts.config
    layout = parts.layout(trainer.world_size)
    steps_per_epoch = -(-layout.num_used // layout.accumulate)
    steps = min(parts.step_limits(trainer.world_size).values(), default=None)
    schedule = build(ScheduleConfig, config["scheduler"], "scheduler")
    place = environment(trainer)
    rate = config["optimizer"].get("lr")
    return {
        "objective": objective or type(parts.objective).__name__,
        "optimizer": str(config["optimizer"]["_target_"]).rpartition(".")[2],
        "learning_rate": rate,
        "schedule": schedule.name,
        "warmup_steps": schedule.num_warmup_steps(steps or steps_per_epoch),
        "device": trainer.strategy.root_device.type,
        "device_name": place["device"],
        "num_devices": trainer.world_size,
        "precision": place["precision"],
        "batch_size": layout.batch_size,
        "accumulate": layout.accumulate,
        "examples_per_step": min(layout.examples_per_step, layout.num_examples),
        "steps_per_epoch": steps_per_epoch,
        "steps": steps,
        "epochs": None if steps is None else steps / steps_per_epoch,
    }


def _data_facts(parts: Parts, num_devices: int, choice: str | None) -> dict[str, Any]:
    """Return the facts of the text; its name is that of its YAML, if the YAML says where the text is."""
    corpus = parts.corpus
    splits = {
        split: {each: ledger[each] for each in ("documents", "tokens", "examples")}
        for split, ledger in corpus.ledger.items()
    }
    trained = [texts for split, texts in corpus.documents.items() if split.startswith("train")]
    sources = [texts.store.meta["source"] for texts in trained]
    layout = parts.layout(num_devices)
    share = layout.num_used / max(1, layout.num_micro_batches)
    return {
        "name": choice if parts.data.path and not parts.data.train else None,
        "train": ", ".join(dict.fromkeys(sources)),
        "splits": splits,
        "examples": parts.data.examples,
        "block_size": parts.data.block_size,
        "tokens_per_epoch": round(_tokens_per_epoch(parts) * share),
    }


def _tokens_per_epoch(parts: Parts) -> float:
    """Return the tokens of an epoch's examples, without padding."""
    examples = parts.corpus.examples["train"]
    if not isinstance(examples, MixedExamples):
        return examples.num_tokens
    sources = zip(examples.sources.values(), examples.counts, strict=True)
    return sum(count * source.num_tokens / len(source) for source, count in sources)


def _state_bytes(parts: Parts, module: LanguageModel, device: torch.device) -> int:
    make = make_optimizer(parts.config)
    groups = parameter_groups(module.model, grouping_of(parts.config, make))
    return sizes.state_bytes(make, groups, device)


def _disk_facts(
    parts: Parts,
    module: LanguageModel,
    trainer: Trainer,
    folder: Path,
    facts: dict[str, Any],
    state: int,
) -> dict[str, Any]:
    training = facts["training"]
    options = parts.config["checkpoint"]
    num_saved = None
    if training["steps"] is not None:
        num_saved = training["steps"] // options["every_n_steps"] + int(training["epochs"]) + 1
    counts = facts["parameters"]
    weights = sum(weight.nbytes for weight in module.parameters() if weight.requires_grad)
    return sizes.disk_facts(
        folder,
        checkpoint=sizes.checkpoint_bytes(module, state, averages_weights(trainer)),
        model=_model_bytes(parts, counts),
        options=options,
        num_checkpoints=num_saved,
        weights=weights if parts.model.export == "best" and parts.corpus.validations else 0,
    )


def _model_bytes(parts: Parts, counts: dict[str, Any]) -> int:
    """Return the bytes of the weights in model/."""
    if parts.model.lora.r and not parts.model.lora.merge:
        return 4 * counts["trained"]
    adapters = sum(part["total"] for part in counts["parts"] if part["part"] == "adapters")
    return (counts["total"] - adapters) * parts.stored_dtype.itemsize


def _memory_facts(module: LanguageModel, trainer: Trainer, state: int) -> dict[str, Any]:
    """Return what weights, gradients and optimizer state take of the memory, and what is free."""
    weights = sum(weight.nbytes for weight in module.parameters())
    trained = sum(weight.nbytes for weight in module.parameters() if weight.requires_grad)
    fixed = weights + trained * (1 + averages_weights(trainer)) + state
    if isinstance(trainer.strategy, FullySharded):
        fixed //= trainer.world_size
    device = trainer.strategy.root_device
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        available = free_gb()  # the weights are in memory already
        free = None if available is None else int(available * 1e9) + weights
    return {"fixed_bytes": fixed, "free_bytes": free}


def _findings_of_settings(
    parts: Parts, module: LanguageModel, facts: dict[str, Any]
) -> Iterator[Finding]:
    way = habits.way_of_training(
        parts.model.from_scratch, module.adapted is not None, facts["parameters"]
    )
    found = (
        habits.unusual_rate(parts.config["optimizer"], way, parts.hf_config.model_type),
        settings.float16_overflows(module.model, facts["training"]["precision"]),
        settings.too_short_training(facts),
        sizes.short_of_disk(facts["disk"]),
        settings.short_of_memory(facts["memory"]),
    )
    yield from filter(None, found)


def _findings_of_texts(parts: Parts, facts: dict[str, Any]) -> Iterator[Finding]:
    """Yield what is found in each text; add what validation shares with training text to the facts."""
    configs = parts.data.by_source() or {"": parts.data}
    for source, data in configs.items():
        suffix = f"/{source}" if source else ""
        train = parts.corpus.documents.get(f"train{suffix}")
        name = f"validation{suffix}"
        validation = parts.corpus.documents.get(name)
        if train is not None and parts.data.weights.get(source, 1.0):
            text = Text(train, parts.tokenizer)
            found = [
                repeats.many_copies(train, f"train{suffix}"),
                repeats.many_tokens_per_word(text, parts.vocabulary.size, f"train{suffix}"),
            ]
            if data.format == "text":
                is_causal = parts.module_class.family.is_causal
                positions = facts["model"]["positions"]
                found.append(settings.no_end_of_text(train, is_causal))
                found.append(settings.short_blocks(train, data.block_size, positions, f"train{suffix}"))
            yield from filter(None, found)
        if train is not None and validation is not None and not data.validate_on_train:
            shared = overlap.overlap_of(Text(train, parts.tokenizer), Text(validation, parts.tokenizer))
            facts["data"]["splits"][name]["overlap"] = asdict(shared)
            num_examples = len(parts.corpus.examples[name])
            found = (
                overlap.much_overlap(shared, Text(train, parts.tokenizer), name),
                labels.sorted_labels(data, parts.config["trainer"], num_examples, name),
                labels.other_labels(data, name),
            )
            yield from filter(None, found)
