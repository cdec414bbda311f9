"""Masked language models: bidirectional models that fill in hidden tokens."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, PreTrainedConfig, PreTrainedTokenizerFast

from lmft.data.batch import Batch
from lmft.errors import UserError
from lmft.models.family import Family
from lmft.models.head import target_logits
from lmft.models.loading.positions import max_positions
from lmft.modules.base import LanguageModel
from lmft.modules.generation import excerpt, text_ids
from lmft.modules.labels import batch_of_labels
from lmft.modules.scoring import ScoredText, Window, stretches_of
from lmft.modules.visibility import Sight
from lmft.reporting.family_card import FamilyCard

_NUM_FILLS = 5


class MaskedLanguageModel(LanguageModel):
    """Any model of AutoModelForMaskedLM.

    >>> parts = assemble(compose(["model=distilbert_tiny"]))
    >>> answers = parts.module().answer(["Return [MASK] if"])
    >>> len(answers[0]["fills"][0])
    5
    """

    family = Family(
        name="masked",
        auto_class=AutoModelForMaskedLM,
        fits=lambda config: not config.is_encoder_decoder and config.model_type != "xlnet",
        is_fast_with_eager_attention=True,
        card=FamilyCard(
            name="masked language model",
            does="fills in tokens that are hidden from it",
            task="fill-mask",
            mean_over="the masked tokens; the masks are the same at every measurement",
            comparison="A masked model reads the words on both sides of a gap, so its perplexity cannot "
            "be compared with that of a causal model, nor with one of another vocabulary or another "
            "share of masked tokens",
            peft_class="AutoPeftModel",
            verb="fill",
            call="fill({prompt})",
            prompt="This is a [MASK].",
        ),
    )

    def trial(self, tokens: Tensor) -> tuple[dict[str, Tensor], list[Sight]]:
        """Require that predictions see tokens [T] before them and after them."""
        every_pair = torch.ones(len(tokens), len(tokens), dtype=torch.bool)
        earlier = every_pair.tril(-1)
        later = every_pair.triu(1)
        fault = "fills gaps, but does not see the tokens"
        return {"input_ids": tokens[None]}, [
            Sight("input_ids", earlier, True, f"{fault} before them"),
            Sight("input_ids", later, True, f"{fault} after them"),
        ]

    def inputs_with_labels(self, batch: Mapping[str, Any]) -> Batch:
        """Return the Batch of `input_ids` and `labels` [B, T]; each position predicts its own label."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        labels = batch["labels"].flatten()
        return batch_of_labels(
            inputs, labels, predicted_from=torch.arange(len(labels), device=labels.device)
        )

    def scored_windows(self, text: ScoredText, size: int | None, stride: int | None) -> list[Window]:
        """Return the windows of the pseudo-log-likelihood: each token is hidden alone, once.

        Salazar et al. 2020, Masked Language Model Scoring. Raises: UserError.
        """
        mask_id: Any = self.tokenizer.mask_token_id
        if mask_id is None:
            raise UserError("the tokenizer has no mask token, so no token can be hidden and scored")
        return [
            Window({"input_ids": ids}, columns, ids[columns], places, mask_id)
            for ids, columns, places in stretches_of(text, size, stride, sees_both_sides=True)
        ]

    def answer(
        self,
        prompts: Sequence[Any],
        num_sequences: int | None = None,
        batch_size: int | None = None,
        advance: Callable[[int], object] = lambda _: None,
    ) -> list[dict[str, Any]]:
        """Return the five likeliest tokens at each `[MASK]` of each prompt, with their probabilities.

        Args:
            prompts: texts.
            num_sequences: None; these models write no texts.
            batch_size: prompts filled at a time; None: all.
            advance: called with the number of prompts answered since its last call.

        Returns: [{"prompt": …, "fills": [[{"token", "probability"} × 5] for each mask]}]

        Raises: UserError for a prompt that has no gap, or is longer than the model.
        """
        if num_sequences is not None:
            what = "a masked model fills gaps, and writes no answers of which there could be several"
            raise UserError(what, f"num_return_sequences={num_sequences}", "leave it out")
        self.check_prompts(prompts, self.tokenizer, self.model.config)
        filled = []
        size = batch_size or max(1, len(prompts))
        for start in range(0, len(prompts), size):
            batch = prompts[start : start + size]
            filled += self._fill(batch)
            advance(len(batch))
        return filled

    @classmethod
    def check_prompts(
        cls, prompts: Sequence[Any], tokenizer: PreTrainedTokenizerFast, config: PreTrainedConfig
    ) -> None:
        """Raise UserError for a prompt that has no gap, or is longer than such a model."""
        longest = max_positions(config)
        for prompt in prompts:
            num_tokens = len(text_ids(tokenizer, masked_text(prompt, tokenizer)))
            if longest is not None and num_tokens > longest:
                what = f"a prompt of {num_tokens} tokens is longer than the model's {longest} positions"
                raise UserError(what, f"prompt: {excerpt(prompt)}", "a shorter prompt")

    @torch.no_grad()
    def _fill(self, prompts: Sequence[Any]) -> list[dict[str, Any]]:
        texts = [masked_text(prompt, self.tokenizer) for prompt in prompts]
        options = {"padding": len(texts) > 1, "return_tensors": "pt"}
        inputs = self.tokenizer(texts, **options).to(self.device)
        ids: Tensor = inputs["input_ids"]
        mask_id: Any = self.tokenizer.mask_token_id
        is_mask = ids.eq(mask_id)  # [B, T]
        index = is_mask.flatten().nonzero()[:, 0]  # [masks]
        logits = target_logits(self.model, self.body, dict(inputs), index)  # [masks, V]
        top = logits.float().softmax(-1).topk(_NUM_FILLS)
        fills = [
            [
                {"token": str(self.tokenizer.decode([token])).strip(), "probability": probability}
                for token, probability in zip(tokens, probabilities, strict=True)
            ]
            for tokens, probabilities in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]
        by_mask = iter(fills)
        counts = is_mask.sum(1).tolist()
        return [
            {"prompt": prompt, "fills": list(islice(by_mask, count))}
            for prompt, count in zip(prompts, counts, strict=True)
        ]


def masked_text(prompt: Any, tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the prompt with the tokenizer's mask token for `[MASK]`. Raises: UserError if it has
    neither.
    """
    if tokenizer.mask_token is None:
        raise UserError("the tokenizer has no mask token, so the model fills no gaps", fix="no prompts")
    if isinstance(prompt, dict):
        raise UserError("masked models cannot answer chats", fix='prompt="This is a [MASK] film."')
    mask = str(tokenizer.mask_token)
    text = str(prompt).replace("[MASK]", mask)
    if mask not in text:
        fix = 'a text with a gap: "This is a [MASK] film."'
        where = f"prompt: {excerpt(prompt)}"
        raise UserError("a masked model fills gaps, and the prompt has none", where, fix)
    return text
