"""Permuted language models (XLNet): they predict tokens in a random order, each from earlier ones."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from lmft.data.batch import Batch
from lmft.errors import UserError
from lmft.models.family import Family
from lmft.modules.generation import GeneratingModel, text_ids, up_to_mask
from lmft.modules.labels import batch_of_labels
from lmft.modules.visibility import Sight
from lmft.reporting.family_card import FamilyCard


class PermutedLanguageModel(GeneratingModel):
    """XLNet. It continues the text before the first `[MASK]` of a prompt.

    With `target_mapping` [B, P, T] in a batch its body returns hidden states of the targets alone, [B,
    P, D].

    >>> parts = assemble(compose(["model=xlnet_tiny"]))
    >>> sorted(parts.module().answer(["Return True if"])[0]["texts"])
    ['greedy', 'sampled']
    """

    family = Family(
        name="permuted",
        auto_class=AutoModelForCausalLM,
        fits=lambda config: config.model_type == "xlnet",
        card=FamilyCard(
            name="permutation language model",
            does="predicts tokens in any order",
            task="text-generation",
            mean_over="the predicted tokens; these, and their order, are the same at every measurement",
            comparison="Perplexities can be compared under the same tokenizer and the same share of "
            "predicted tokens only",
            peft_class="AutoPeftModelForCausalLM",
        ),
    )
    body_options: ClassVar[dict[str, Any]] = {"use_mems": False}  # no row continues the one before it

    def trial(self, tokens: Tensor) -> tuple[dict[str, Tensor], list[Sight]]:
        """Require that predictions see tokens [T] that are not targets, and targets before them in an
        order.

        They must not see themselves, nor later targets. The masks are those that the objective
        `Permutation` makes of the order.
        """
        order = torch.tensor([2, -1, 0, 3, -1, 1])[: len(tokens)]  # of the targets; −1: no target
        is_target = order >= 0
        may_not_see = order[:, None] <= torch.where(is_target, order, -2)  # [T, T]
        unseen = may_not_see[is_target]  # [P, T]
        mapping = torch.eye(len(tokens))[is_target]
        batch = {
            "input_ids": tokens[None],
            "perm_mask": may_not_see[None],
            "target_mapping": mapping[None],
        }
        return batch, [
            Sight(
                "input_ids", unseen, False, "sees the tokens that it is to predict, or to predict later"
            ),
            Sight(
                "input_ids",
                ~unseen & is_target,
                True,
                "does not see the tokens that it predicted before",
            ),
            Sight("input_ids", ~unseen & ~is_target, True, "does not see the text that it is given"),
        ]

    def target_positions(self, batch: Batch) -> Tensor:
        """Return the position of each target in its row. [K]"""
        columns = batch.inputs["target_mapping"].argmax(-1)  # [B, P]
        return columns.flatten()[batch.target_index]

    def inputs_with_labels(self, batch: Mapping[str, Any]) -> Batch:
        """Return the Batch of what `DataCollatorForPermutationLanguageModeling` makes.

        It has `input_ids`, `labels` and one query a position: `perm_mask` and `target_mapping` [B, T,
        T].
        """
        if "target_mapping" not in batch:
            fix = "DataCollatorForPermutationLanguageModeling of transformers"
            raise UserError(
                "a batch of an XLNet needs perm_mask and target_mapping", "your DataLoader", fix
            )
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        labels = batch["labels"].flatten()
        return batch_of_labels(
            inputs, labels, predicted_from=torch.arange(len(labels), device=labels.device)
        )

    @classmethod
    def ids_of(cls, prompt: Any, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        """Return the tokens of the text without the tokenizer's separators, which would end it."""
        if isinstance(prompt, dict):
            raise UserError("permuted models cannot answer chats", fix='prompt="…" instead of chat="…"')
        end: Any = tokenizer.cls_token_id  # ends a text, so an empty prompt begins after it
        return text_ids(tokenizer, up_to_mask(str(prompt)), add_special_tokens=False) or [end]

    def shown(self, prompt: Any) -> str:
        """Return the text up to its first `[MASK]`."""
        return up_to_mask(str(prompt))

    def generate(self, prompts: list[list[int]], options: dict[str, Any]) -> list[list[int]]:
        """Return the new tokens of each prompt, one prompt at a time.

        In `generate`, transformers' XLNet does not mask padding.
        """
        options = {**options, **self.body_options}
        rows = []
        for prompt in prompts:
            rows += super().generate([prompt], options)
        return rows
