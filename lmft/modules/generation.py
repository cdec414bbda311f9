"""Models that answer prompts with generated text, once greedily and once by sampling."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from lmft.errors import UserError
from lmft.models.loading.positions import max_positions
from lmft.modules.base import LanguageModel

_EXCERPT = 60  # characters of a prompt in messages


class GeneratingModel(LanguageModel):
    """A language model that answers prompts with transformers' `generate`."""

    @classmethod
    @abstractmethod
    def ids_of(cls, prompt: Any, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        """Return the tokens of a prompt. Raises: UserError if such models cannot answer it."""

    def prompt_ids(self, prompt: Any) -> list[int]:
        """Return the tokens of a prompt. Raises: UserError if the model cannot answer such a prompt."""
        return self.ids_of(prompt, self.tokenizer)

    @classmethod
    def check_prompts(
        cls, prompts: Sequence[Any], tokenizer: PreTrainedTokenizerFast, config: PreTrainedConfig
    ) -> None:
        """Raise UserError for a prompt that such models cannot answer, or that leaves no room."""
        is_encoded = config.is_encoder_decoder
        longest = max_positions(config, "encoder") if is_encoded else max_positions(config)
        for prompt in prompts:
            num_tokens = len(cls.ids_of(prompt, tokenizer))
            if longest is None or num_tokens + (not is_encoded) <= longest:
                continue
            how = "is longer than" if is_encoded or num_tokens > longest else "fills"
            what = f"a prompt of {num_tokens} tokens {how} the model's {longest} positions"
            raise UserError(what, f"prompt: {excerpt(prompt)}", "a shorter prompt")

    def max_new_tokens_left(self, num_tokens: int) -> int:
        """Return how many tokens can follow a prompt of `num_tokens`. Raises: UserError if none can."""
        return 10**9

    def answer_of(self, prompt: Any, ids: list[int]) -> str:
        """Return the text of an answer to the prompt, from the generated tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def answer(self, prompts: Sequence[Any]) -> list[dict[str, Any]]:
        """Answer each prompt, once greedily and once by sampling under the run's seed.

        The form of a prompt depends on the family.

        Returns: [{"prompt": …, "texts": {"greedy": …, "sampled": …}}]
        """
        if not prompts:
            return []
        self.check_prompts(prompts, self.tokenizer, self.model.config)
        encoded = [self.prompt_ids(prompt) for prompt in prompts]
        options = dict(self.generation)
        num_left = self.max_new_tokens_left(max(map(len, encoded)))
        num_new = min(options.pop("max_new_tokens", 40), num_left)
        limits = {"max_new_tokens": num_new, "num_beams": 1}  # the default of some models is beam search
        greedy = self.generate(encoded, {**limits, "do_sample": False})
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            sampled = self.generate(encoded, {**limits, "do_sample": True, **options})
        answers = []
        for prompt, greedy_ids, sampled_ids in zip(prompts, greedy, sampled, strict=True):
            texts = {
                "greedy": self.answer_of(prompt, greedy_ids),
                "sampled": self.answer_of(prompt, sampled_ids),
            }
            answers.append({"prompt": self.shown(prompt), "texts": texts})
        return answers

    def shown(self, prompt: Any) -> str:
        """Return the text that tables show for a prompt."""
        return str(prompt)

    @torch.no_grad()
    def generate(self, prompts: list[list[int]], options: dict[str, Any]) -> list[list[int]]:
        """Return the new tokens of each prompt, generated in one batch; padding follows an answer's end.

        A decoder continues the end of a row, so prompts are padded on the left. Encoders count positions
        from the start of a row, so prompts of encoder-decoders are padded on the right.
        """
        ends = _as_list(self.model.generation_config.eos_token_id) + _as_list(
            self.tokenizer.eos_token_id
        )
        pad: Any = self.tokenizer.pad_token_id
        if pad is None:
            pad = ends[0] if ends else 0
        longest = max(map(len, prompts))
        is_encoded = self.model.config.is_encoder_decoder
        ids = torch.full((len(prompts), longest), pad)
        mask = torch.zeros((len(prompts), longest), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            start = 0 if is_encoded else longest - len(prompt)
            ids[row, start : start + len(prompt)] = torch.tensor(prompt)
            mask[row, start : start + len(prompt)] = 1
        try:
            rows: Tensor = self.model.generate(  # pyright: ignore[reportCallIssue, reportAssignmentType]
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                pad_token_id=pad,
                eos_token_id=sorted(set(ends)) or None,
                **options,
            )
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"`generate` refuses its options: {reason}", "model.generation") from error
        num_given = 1 if is_encoded else longest  # the decoder's start token, or the prompt
        return rows[:, num_given:].tolist()


def text_ids(tokenizer: PreTrainedTokenizerFast, text: str, **options: Any) -> list[int]:
    """Return a text's tokens; `options` are arguments of the tokenizer."""
    encoded: Any = tokenizer(text, verbose=False, **options)
    return encoded["input_ids"]


def excerpt(prompt: Any) -> str:
    """Return the beginning of a prompt, for messages."""
    text = " ".join(str(prompt).split())
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…"


def up_to_mask(text: str) -> str:
    """Return the text before the first `[MASK]`; all of it if there is none."""
    return text.partition("[MASK]")[0].rstrip() if "[MASK]" in text else text


def _as_list(ids: Any) -> list[int]:
    if ids is None:
        return []
    if isinstance(ids, list | tuple):
        return list(ids)
    return [ids]
