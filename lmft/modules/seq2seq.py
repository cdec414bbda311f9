"""Sequence-to-sequence models: an encoder reads one text, a decoder writes another (T5, BART)."""

import itertools
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

from lmft.data.batch import Batch
from lmft.errors import UserError
from lmft.models.family import Family
from lmft.models.loading.positions import max_positions
from lmft.modules.generation import GeneratingModel, excerpt, text_ids
from lmft.modules.labels import batch_of_labels
from lmft.modules.scoring import ScoredText, Window
from lmft.modules.visibility import Sight
from lmft.objectives.span_corruption import sentinel, sentinel_ids
from lmft.reporting.family_card import FamilyCard


class Seq2SeqLanguageModel(GeneratingModel):
    """Any model of AutoModelForSeq2SeqLM.

    It answers a prompt with text. `[MASK]` stands for the next sentinel, and the answer is the prompt
    with the sentinels filled in; in models without sentinels it stands for the mask token.

    >>> parts = assemble(compose(["model=t5_tiny"]))
    >>> sorted(parts.module().answer(["Return [MASK] if"])[0]["texts"])
    ['greedy', 'sampled']
    """

    family = Family(
        name="seq2seq",
        auto_class=AutoModelForSeq2SeqLM,
        fits=lambda config: config.is_encoder_decoder,
        is_fast_with_eager_attention=True,
        card=FamilyCard(
            name="sequence-to-sequence language model",
            does="reads one text and writes another",
            task="text2text-generation",
            mean_over="the tokens that the decoder predicts; they are the same at every measurement",
            comparison="Perplexities can be compared under the same tokenizer and the same objective "
            "only",
            peft_class="AutoPeftModelForSeq2SeqLM",
            loader="AutoModelForSeq2SeqLM",
        ),
    )
    body_options: ClassVar[dict[str, Any]] = {"use_cache": False}  # nothing is generated while training

    @property
    def body(self) -> nn.Module:
        """The decoder, which the model calls with the encoder's hidden states.

        That of an EncoderDecoderModel is a model with a head, and its base model is meant.
        """
        decoder: Any = self.model.get_decoder()
        return getattr(decoder, "base_model", decoder)

    @property
    def stacks(self) -> list[nn.Module]:
        """Encoder and decoder."""
        return [self.model.get_encoder(), self.body]

    def trial(self, tokens: Tensor) -> tuple[dict[str, Tensor], list[Sight]]:
        """Require that predictions see the encoder's tokens [T] and the decoder's earlier ones only."""
        every_pair = torch.ones(len(tokens), len(tokens), dtype=torch.bool)
        later = every_pair.triu(1)
        earlier = every_pair.tril(-1)
        batch = {"input_ids": tokens.flip(0)[None], "decoder_input_ids": tokens[None]}
        decoder = "decoder_input_ids"
        return batch, [
            Sight(decoder, later, False, "has a decoder that sees the tokens that it is to predict"),
            Sight(decoder, earlier, True, "has a decoder that does not see the tokens before"),
            Sight(
                "input_ids",
                every_pair,
                True,
                "has a decoder that sees nothing of what the encoder reads",
            ),
        ]

    def target_positions(self, batch: Batch) -> Tensor:
        """Return the position of each target in the decoder's text. [K]"""
        return batch.target_index % batch.inputs["decoder_input_ids"].shape[1]

    def scored_windows(self, text: ScoredText, size: int | None, stride: int | None) -> list[Window]:
        """Return the one window of a pair: the target's log-likelihood, given the source."""
        source = text.tokens[: text.num_source]
        target = text.tokens[text.num_source :]
        columns = np.flatnonzero(text.is_scored[text.num_source :])
        before = np.append(self.model.config.decoder_start_token_id, target[:-1])
        inputs = {"input_ids": source, "decoder_input_ids": before}
        return [Window(inputs, columns, target[columns], text.num_source + columns)]

    def inputs_with_labels(self, batch: Mapping[str, Any]) -> Batch:
        """Return the Batch of the encoder's `input_ids` [B, S] and the decoder's `labels` [B, T]."""
        labels = batch["labels"]
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        if "decoder_input_ids" not in inputs:
            shift: Any = self.model.prepare_decoder_input_ids_from_labels
            inputs["decoder_input_ids"] = shift(labels=labels)
        return batch_of_labels(
            inputs, labels.flatten(), predicted_from=torch.arange(labels.numel(), device=labels.device)
        )

    @classmethod
    def ids_of(cls, prompt: Any, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        """Return the encoder's tokens of a prompt, with the tokenizer's separators."""
        return text_ids(tokenizer, encoder_text(prompt, tokenizer))

    def max_new_tokens_left(self, num_tokens: int) -> int:
        """Return how many tokens the decoder can write, whatever the encoder reads."""
        longest = max_positions(self.model.config, "decoder")
        if longest is None:
            return super().max_new_tokens_left(num_tokens)
        return longest - 1

    def answer_of(self, prompt: Any, ids: list[int]) -> str:
        """Return the generated text; if it has sentinels of the prompt, the prompt with these filled in.

        A sentinel's fill is the generated text that follows it. A sentinel without a fill stays.
        """
        text = encoder_text(prompt, self.tokenizer)
        fills = self._fills(ids)
        filled = [re.escape(name) for name in fills if name in text]
        if not filled:
            return super().answer_of(prompt, ids)
        return re.sub("|".join(filled), lambda match: fills[match[0]], text)

    def _fills(self, ids: list[int]) -> dict[str, str]:
        """Return {sentinel: the text that follows it}; if a sentinel occurs twice, the first text."""
        sentinels = {token: sentinel(number) for number, token in _sentinels(self.tokenizer).items()}
        starts = [index for index, token_id in enumerate(ids) if token_id in sentinels]
        fills: dict[str, str] = {}
        for start, stop in itertools.pairwise([*starts, len(ids)]):
            text = self.tokenizer.decode(ids[start + 1 : stop], skip_special_tokens=True)
            fills.setdefault(sentinels[ids[start]], str(text).strip())
        return fills


def encoder_text(prompt: Any, tokenizer: PreTrainedTokenizerFast) -> str:
    """Return the text that the encoder reads: each `[MASK]` is the next sentinel, or the mask token.

    Raises: UserError if the prompt is a chat, or has a `[MASK]` and the tokenizer neither of them.
    """
    if isinstance(prompt, dict):
        raise UserError("seq2seq models cannot answer chats", fix='prompt="…" instead of chat="…"')
    text = str(prompt)
    sentinels = _sentinels(tokenizer)
    if "[MASK]" in text and not sentinels and tokenizer.mask_token is None:
        what = "the prompt has a [MASK], and the tokenizer neither sentinels nor a mask token"
        raise UserError(what, f"prompt: {excerpt(prompt)}", "a prompt without [MASK]")
    if not sentinels:
        return text.replace("[MASK]", str(tokenizer.mask_token))
    numbers = itertools.count()
    text = re.sub(r"\[MASK\]", lambda _: sentinel(next(numbers)), text)
    if sentinels[min(sentinels)] in tokenizer.added_tokens_decoder:
        return text
    # mT5's sentinels are pieces that begin a word, so a space has to stand before them.
    return re.sub(r"(?<=\S)(?=<extra_id_\d+>)", " ", text)


def _sentinels(tokenizer: PreTrainedTokenizerFast) -> dict[int, int]:
    return sentinel_ids(tokenizer.get_vocab())
