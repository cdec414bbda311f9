"""Answers that a model writes itself: once greedily, once by sampling under the run's seed."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lmft.errors import UserError
from lmft.modules.base import LanguageModel


class GeneratingModel(LanguageModel):
    """A language model that answers a prompt with tokens of its own, by `generate` of transformers."""

    @abstractmethod
    def prompt_ids(self, prompt: Any) -> list[int]:
        """What the model is given of a prompt. Raises UserError for a prompt that it cannot answer."""

    def max_new_tokens_left(self, num_tokens: int) -> int:
        """How many tokens the model can write behind prompts of up to so many tokens. Raises UserError if
        none.
        """
        return 10**9

    def answer_of(self, prompt: Any, ids: list[int]) -> str:
        """The text of an answer's tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def answer(self, prompts: Sequence[Any]) -> list[dict[str, Any]]:
        """Answers each prompt, once greedily and once by sampling under the run's seed.

        What a prompt may be, and what an answer says, depends on the family.
        [{"prompt": …, "texts": {"greedy": …, "sampled": …}}]
        """
        if not prompts:
            return []
        encoded = [self.prompt_ids(prompt) for prompt in prompts]
        options = dict(self.generation)
        num_new = min(options.pop("max_new_tokens", 40), self.max_new_tokens_left(max(map(len, encoded))))
        limit = {"max_new_tokens": num_new, "num_beams": 1}  # some models' own default is to search
        greedy = self.generate(encoded, {**limit, "do_sample": False})
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            sampled = self.generate(encoded, {**limit, "do_sample": True, **options})
        return [
            {
                "prompt": self.shown(prompt),
                "texts": {"greedy": self.answer_of(prompt, first), "sampled": self.answer_of(prompt, second)},
            }
            for prompt, first, second in zip(prompts, greedy, sampled, strict=True)
        ]

    def shown(self, prompt: Any) -> str:
        """A prompt for people."""
        return str(prompt)

    def text_ids(self, text: str, **options: Any) -> list[int]:
        """A text's tokens; options: those of the tokenizer."""
        encoded: Any = self.tokenizer(text, **options)
        return encoded["input_ids"]

    @torch.no_grad()
    def generate(self, prompts: list[list[int]], options: dict[str, Any]) -> list[list[int]]:
        """The new tokens behind each prompt, all prompts in one batch; beyond an answer's end, the padding
        token.

        What is written goes on where a row ends, so padding comes first; but an encoder's positions count
        from there.
        """
        ends = _as_list(self.model.generation_config.eos_token_id) + _as_list(self.tokenizer.eos_token_id)
        pad: Any = self.tokenizer.pad_token_id
        pad = pad if pad is not None else (ends or [0])[0]
        longest = max(map(len, prompts))
        is_encoded = self.model.config.is_encoder_decoder
        ids, mask = (torch.empty((len(prompts), longest), dtype=torch.long) for _ in range(2))
        for row, prompt in enumerate(prompts):
            padding = longest - len(prompt)
            around = (0, padding) if is_encoded else (padding, 0)
            ids[row] = torch.nn.functional.pad(torch.tensor(prompt), around, value=pad)
            mask[row] = torch.nn.functional.pad(torch.ones(len(prompt), dtype=torch.long), around)
        try:
            made: Tensor = self.model.generate(  # pyright: ignore[reportCallIssue, reportAssignmentType]
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                pad_token_id=pad,
                eos_token_id=sorted(set(ends)) or None,
                **options,
            )
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"`generate` refuses its options: {reason}", "model.generation") from error
        return made[:, 1 if is_encoded else longest :].tolist()  # behind the decoder's start, or the prompt


def up_to_mask(text: str) -> str:
    """What stands before the first `[MASK]`."""
    return text.partition("[MASK]")[0].rstrip() if "[MASK]" in text else text


def _as_list(ids: Any) -> list[int]:
    return [] if ids is None else list(ids) if isinstance(ids, list | tuple) else [ids]
