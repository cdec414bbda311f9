"""Masked language models: bidirectional, they fill in hidden tokens."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lmft.errors import UserError
from lmft.modules.base import LanguageModel
from lmft.modules.visibility import Sight, fix_of_sides

_NUM_FILLS = 5


class MaskedLanguageModel(LanguageModel):
    """Any model of AutoModelForMaskedLM."""

    task: ClassVar[str] = "fill-mask"

    def trial(self, tokens: Tensor) -> tuple[dict[str, Tensor], list[Sight]]:
        """Has predictions see what stands before them, and what stands behind them."""
        both = torch.ones(len(tokens), len(tokens), dtype=torch.bool)
        fault, fix = "is to fill gaps, but sees nothing", fix_of_sides(self.model.config, is_causal=False)
        return {"input_ids": tokens[None]}, [
            Sight("input_ids", both.tril(-1), True, f"{fault} of what stands before them", fix),
            Sight("input_ids", both.triu(1), True, f"{fault} of what stands behind them", fix),
        ]

    def answer(self, prompts: Sequence[str]) -> list[dict[str, Any]]:
        """The five likeliest tokens with their probabilities at each mask; `[MASK]` stands for the model's mask token.

        {"prompt": …, "fills": [[{"token", "probability"} × 5] for each mask]} for each prompt.
        """
        return [self._fill(prompt) for prompt in prompts]

    @torch.no_grad()
    def _fill(self, prompt: str) -> dict[str, Any]:
        text = masked_text(prompt, self.tokenizer)
        inputs = self.tokenizer(text, return_tensors="pt").to(self.device)
        logits = self.model(**inputs).logits[0][inputs["input_ids"][0] == self.tokenizer.mask_token_id]  # [masks, V]
        top = logits.float().softmax(-1).topk(_NUM_FILLS)
        fills = [
            [
                {"token": str(self.tokenizer.decode([token])).strip(), "probability": probability}
                for token, probability in zip(tokens, probabilities, strict=True)
            ]
            for tokens, probabilities in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]
        return {"prompt": prompt, "fills": fills}


def masked_text(prompt: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """The prompt with the tokenizer's mask token for `[MASK]`. Raises UserError for a prompt without either."""
    mask = str(tokenizer.mask_token)
    text = str(prompt).replace("[MASK]", mask)
    if mask not in text:
        fix = 'a text with a gap: "This is a [MASK] film."'
        raise UserError("a masked model fills gaps, and the prompt has none", f"prompt: {prompt}", fix)
    return text
