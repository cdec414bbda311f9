"""Causal language models: they predict each token from those before it, continue text, and answer
chats.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import jinja2
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from lmft.data.batch import Batch
from lmft.errors import UserError
from lmft.models.family import Family
from lmft.models.loading.positions import max_positions
from lmft.modules.generation import GeneratingModel, text_ids, up_to_mask
from lmft.modules.labels import batch_of_labels
from lmft.modules.scoring import ScoredText, Window, stretches_of
from lmft.modules.visibility import Sight
from lmft.reporting.family_card import FamilyCard


class CausalLanguageModel(GeneratingModel):
    """Any model of AutoModelForCausalLM with causal attention. It continues text, or answers in a chat.

    >>> parts = assemble(compose(["model=gpt2_tiny"]))
    >>> sorted(parts.module().answer(["Return True if"])[0]["texts"])
    ['greedy', 'sampled']
    """

    family = Family(
        name="causal",
        auto_class=AutoModelForCausalLM,
        fits=lambda config: not config.is_encoder_decoder and config.model_type != "xlnet",
        is_causal=True,
        card=FamilyCard(
            name="causal language model",
            does="continues text",
            task="text-generation",
            mean_over="the predicted tokens",
            comparison="Perplexities can be compared under the same tokenizer only",
            peft_class="AutoPeftModelForCausalLM",
            is_causal=True,
        ),
    )
    body_options: ClassVar[dict[str, Any]] = {"use_cache": False}  # nothing is generated while training

    @property
    def body(self) -> nn.Module:
        """The decoder; OPT calls it without calling its base model."""
        decoder = self.model.get_decoder()
        # In ModernBERT's decoder model, `get_decoder` returns the output projection.
        return decoder if isinstance(decoder, PreTrainedModel) else self.model.base_model

    def trial(self, tokens: Tensor) -> tuple[dict[str, Tensor], list[Sight]]:
        """Require that predictions see tokens [T] before them, and none after them."""
        every_pair = torch.ones(len(tokens), len(tokens), dtype=torch.bool)
        later = every_pair.triu(1)
        earlier = every_pair.tril(-1)
        return {"input_ids": tokens[None]}, [
            Sight("input_ids", later, False, "sees the tokens that it is to predict"),
            Sight("input_ids", earlier, True, "does not see the tokens before the one that it predicts"),
        ]

    def scored_windows(self, text: ScoredText, size: int | None, stride: int | None) -> list[Window]:
        """Return the windows of the log-likelihood; a first token has no score, as nothing predicts it.

        Raises: UserError.
        """
        windows = []
        for ids, columns, places in stretches_of(text, size, stride, sees_both_sides=False):
            is_predicted = columns > 0
            columns = columns[is_predicted]
            if len(columns):
                inputs = {"input_ids": ids[: columns[-1]]}
                windows.append(Window(inputs, columns - 1, ids[columns], places[is_predicted]))
        return windows

    def inputs_with_labels(self, batch: Mapping[str, Any]) -> Batch:
        """Return the Batch of `input_ids` and `labels` [B, T]; the position before a label predicts
        it.
        """
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        labels = batch["labels"]
        positions = torch.arange(labels.numel(), device=labels.device).view_as(labels)
        return batch_of_labels(
            inputs, labels[:, 1:].flatten(), predicted_from=positions[:, :-1].flatten()
        )

    @classmethod
    def ids_of(cls, prompt: Any, tokenizer: PreTrainedTokenizerFast) -> list[int]:
        """Return the tokens of a prompt: a text up to its first `[MASK]`, or {"chat": TEXT | MESSAGES}.

        A chat may have `tools` and `chat_template_kwargs`, which are given to the chat template.

        Raises: UserError if the prompt is empty and the tokenizer has no token to begin a text with.
        """
        if isinstance(prompt, dict):
            ids = _render(tokenizer, messages_of(prompt["chat"]), answer_follows=True, more=prompt)
        else:
            ids = text_ids(tokenizer, up_to_mask(str(prompt)))
        if ids:
            return ids
        start: Any = tokenizer.bos_token_id
        if start is None:
            start = tokenizer.eos_token_id
        if start is None:
            raise UserError(
                "an empty prompt: the tokenizer has no token that begins a text", fix='prompt="…"'
            )
        return [start]

    def shown(self, prompt: Any) -> str:
        """Return the last message of a chat, or a text up to its first `[MASK]`."""
        if isinstance(prompt, dict):
            return str(messages_of(prompt["chat"])[-1]["content"])
        return up_to_mask(str(prompt))

    def max_new_tokens_left(self, num_tokens: int) -> int:
        """Return how many positions are left after a prompt of `num_tokens`. Raises: UserError if
        none.
        """
        num_left = self._num_positions_left(num_tokens)
        if num_left < 1:
            num_positions = num_tokens + num_left
            raise UserError(
                f"a prompt of {num_tokens} tokens fills the model's {num_positions} positions"
            )
        return num_left

    @torch.no_grad()
    def teacher_forced(self, prompt: Any, completion: str) -> dict[str, Any]:
        """Return the model's predictions of the given completion, token by token (teacher forcing).

        Args:
            prompt: as for `answer`.
            completion: the text whose tokens are predicted; if empty, the tokens of the prompt are, but
                the first.

        Returns: {"prompt", "completion", "tokens": [{"token", "predicted", "probability", "rank"}]};
            probability and rank (from 1) are those of the true token.

        Raises: UserError if the text is longer than the model's positions.
        """
        prompt_ids = self.prompt_ids(prompt)
        ids = prompt_ids
        start = 1
        if completion:
            ids = self._ids_with_completion(prompt, completion)
            start = max(1, _num_common(prompt_ids, ids))
        num_left = self._num_positions_left(len(ids))
        if num_left < 0:
            num_positions = len(ids) + num_left
            raise UserError(
                f"a text of {len(ids)} tokens is longer than the model's {num_positions} positions"
            )
        logits = self.model(input_ids=torch.tensor([ids], device=self.device)).logits[0, start - 1 : -1]
        probabilities = logits.float().softmax(-1)  # [n, V]
        true_ids = torch.tensor(ids[start:], device=self.device)  # [n]
        true_probabilities = probabilities.gather(1, true_ids[:, None])  # [n, 1]
        ranks = (probabilities > true_probabilities).sum(-1) + 1  # [n]
        columns = (true_ids, probabilities.argmax(-1), true_probabilities[:, 0], ranks)
        tokens = [
            {
                "token": str(self.tokenizer.decode([true_id])),
                "predicted": str(self.tokenizer.decode([predicted_id])),
                "probability": probability,
                "rank": rank,
            }
            for true_id, predicted_id, probability, rank in zip(
                *(column.tolist() for column in columns), strict=True
            )
        ]
        return {"prompt": self.shown(prompt), "completion": completion, "tokens": tokens}

    def _num_positions_left(self, num_tokens: int) -> int:
        """Return how many positions are left after `num_tokens`; negative if there are too many
        tokens.
        """
        return (max_positions(self.model.config) or 10**9) - num_tokens

    def _ids_with_completion(self, prompt: Any, completion: str) -> list[int]:
        if isinstance(prompt, dict):
            turns = [*messages_of(prompt["chat"]), {"role": "assistant", "content": completion}]
            return _render(self.tokenizer, turns, answer_follows=False, more=prompt)
        ids = text_ids(self.tokenizer, self.shown(prompt) + completion)
        end: Any = self.tokenizer.eos_token_id
        if end is not None:
            ids = [*ids, end]
        return ids


def _render(
    tokenizer: PreTrainedTokenizerFast,
    messages: list[dict[str, Any]],
    answer_follows: bool,
    more: Mapping[str, Any],
) -> list[int]:
    if not tokenizer.chat_template:
        raise UserError("the tokenizer has no chat template", fix='prompt="…" instead of chat="…"')
    try:
        text = str(
            tokenizer.apply_chat_template(
                messages,
                tools=more.get("tools"),
                tokenize=False,
                add_generation_prompt=answer_follows,
                **(more.get("chat_template_kwargs") or {}),
            )
        )
    except (jinja2.TemplateError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the chat template refuses the chat: {reason}", "chat") from error
    if not answer_follows:
        text = text.rstrip()  # white space after the last end of turn is not predicted
    return text_ids(tokenizer, text, add_special_tokens=False)


def messages_of(chat: Any) -> list[dict[str, Any]]:
    """Return a chat's messages; a text alone is a message of the user."""
    if isinstance(chat, str):
        return [{"role": "user", "content": chat}]
    return list(chat)


def _num_common(first: list[int], second: list[int]) -> int:
    """Return how many ids `first` has before it differs from `second`."""
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return len(first)
