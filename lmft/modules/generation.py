"""Models that answer prompts with generated text, once greedily and once by sampling."""

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from lmft.errors import UserError
from lmft.models.loading.positions import max_positions
from lmft.modules.base import LanguageModel

_EXCERPT = 60  # characters of a prompt in messages
# Options of `generate` that read the tokens of the prompts, and the values with which they do nothing.
_READ_PROMPTS = {"repetition_penalty": 1, "no_repeat_ngram_size": 0, "encoder_repetition_penalty": 1}


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

    def answer(
        self,
        prompts: Sequence[Any],
        num_sequences: int | None = None,
        batch_size: int | None = None,
        advance: Callable[[int], object] = lambda _: None,
    ) -> list[dict[str, Any]]:
        """Answer each prompt greedily, and by sampling under the run's seed, or by beam search.

        Args:
            prompts: their form depends on the family.
            num_sequences: answers of the second kind to each prompt; None: what `generation` asks for,
                else one.
            batch_size: prompts answered at a time; None: all. Greedy answers do not depend on it.
            advance: called with the number of prompts answered since its last call.

        Returns: [{"prompt": …, "texts": {"greedy": …, "sampled": …}}]; several are "sampled 1",
            "sampled 2", …; without sampling "beams".

        Raises: UserError for prompts, or a number of answers, that such models cannot give.
        """
        self.check_prompts(prompts, self.tokenizer, self.model.config)
        kind, options = self._second_kind(num_sequences)
        encoded = [self.prompt_ids(prompt) for prompt in prompts]
        longest = options.pop("max_new_tokens", 40)
        num_new = [min(longest, self.max_new_tokens_left(len(ids))) for ids in encoded]
        texts: list[dict[str, str]] = [{} for _ in prompts]
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            for batch in _batches(encoded, num_new, batch_size, self._have_to_be_alike()):
                # The default of some models is beam search.
                limits = {"max_new_tokens": num_new[batch[0]], "num_beams": 1}
                rows = [encoded[number] for number in batch]
                kinds = {"greedy": {"do_sample": False}}
                if kind is not None:
                    kinds[kind] = options
                for name, own in kinds.items():
                    self._add(texts, batch, prompts, name, self.generate(rows, {**limits, **own}))
                advance(len(batch))
        return [
            {"prompt": self.shown(prompt), "texts": of_prompt}
            for prompt, of_prompt in zip(prompts, texts, strict=True)
        ]

    def _second_kind(self, num_sequences: int | None) -> tuple[str | None, dict[str, Any]]:
        """Return the name of the answers that are not greedy, None for none, and their options.

        Raises: UserError if so many cannot be given.
        """
        options: dict[str, Any] = {"do_sample": True, **self.generation}
        if num_sequences is not None:
            options["num_return_sequences"] = num_sequences
        count = options.get("num_return_sequences") or 1
        beams = options.get("num_beams") or 1
        if options["do_sample"]:
            kind = "sampled"
        elif beams == 1:
            kind = None
        else:
            kind = "beams"
        where = f"num_return_sequences={count}"
        if count > 1 and kind is None:
            fix = "model.generation.do_sample=true, or model.generation.num_beams"
            raise UserError("greedy decoding gives one answer", where, f"{fix}={count}")
        if 1 < beams < count:
            what = f"{beams} beams give {beams} answers at most"
            raise UserError(what, where, f"model.generation.num_beams={count}")
        return kind, options

    def _add(
        self,
        texts: list[dict[str, str]],
        batch: Sequence[int],
        prompts: Sequence[Any],
        kind: str,
        rows: Sequence[list[int]],
    ) -> None:
        """Add answers to the texts of a batch's prompts, of which each has the same number of rows."""
        count = len(rows) // len(batch)
        for place, ids in enumerate(rows):
            number = batch[place // count]
            name = kind if count == 1 else f"{kind} {place % count + 1}"
            texts[number][name] = self.answer_of(prompts[number], ids)

    def _have_to_be_alike(self) -> bool:
        """Return whether prompts of a batch have to be equally long.

        Penalties of repeated tokens would count padding among the tokens of shorter prompts.
        """
        if self.model.config.is_encoder_decoder:
            return False
        options = {**self.model.generation_config.to_diff_dict(), **self.generation}
        return any(
            options.get(name, value) not in (None, value) for name, value in _READ_PROMPTS.items()
        )

    def shown(self, prompt: Any) -> str:
        """Return the text that tables show for a prompt."""
        return str(prompt)

    @torch.no_grad()
    def generate(self, prompts: list[list[int]], options: dict[str, Any]) -> list[list[int]]:
        """Return the new tokens of each prompt, generated in one batch; padding follows an answer's end.

        With `num_return_sequences` each prompt has several rows, which follow each other.

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
        options = {"pad_token_id": pad, "eos_token_id": sorted(set(ends)) or None, **options}
        try:
            rows: Tensor = self.model.generate(  # pyright: ignore[reportCallIssue, reportAssignmentType]
                input_ids=ids.to(self.device), attention_mask=mask.to(self.device), **options
            )
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"`generate` refuses its options: {reason}", "model.generation") from error
        num_given = 1 if is_encoded else longest  # the decoder's start token, or the prompt
        return rows[:, num_given:].tolist()


def _batches(
    prompts: Sequence[list[int]], num_new: Sequence[int], size: int | None, are_alike: bool
) -> Iterator[list[int]]:
    """Yield numbers of prompts to be answered together, which may get equally many new tokens.

    If there is more than one batch, prompts of similar length are together.

    Args:
        prompts: their tokens.
        num_new: the most new tokens of each.
        size: prompts of a batch at most; None: no limit.
        are_alike: whether only prompts of one length may be together.
    """
    numbers = list(range(len(prompts)))
    keys = [(-num_new[i], len(prompts[i]) if are_alike else 0) for i in numbers]
    size = size or len(prompts)
    if len(numbers) > size or len(set(keys)) > 1:
        numbers.sort(key=lambda i: (keys[i], len(prompts[i])))
    for _, group in itertools.groupby(numbers, key=lambda i: keys[i]):
        alike = list(group)
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


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
