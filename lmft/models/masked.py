"""Masked language models: bidirectional, they fill in hidden tokens."""

from typing import Any, ClassVar

import torch

from lmft.models.base import LanguageModel

_NUM_FILLS = 5


class MaskedLanguageModel(LanguageModel):
    """Any model of AutoModelForMaskedLM."""

    family: ClassVar[str] = "masked"
    task: ClassVar[str] = "fill-mask"

    @torch.no_grad()
    def probe(self, prompt: str) -> dict[str, Any]:
        """The five likeliest tokens with their probabilities at each mask; `[MASK]` stands for the model's mask token.

        {"prompt": …, "fills": [[{"token", "probability"} × 5] for each mask]}
        """
        text = prompt.replace("[MASK]", str(self.tokenizer.mask_token))
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
