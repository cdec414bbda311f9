"""Causal language models: each token from those before it; they continue text, and answer in chats."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jinja2
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from lmft.data.batch import Batch
from lmft.errors import UserError
from lmft.models.family import Family
from lmft.models.loading.hf_config import max_positions
from lmft.modules.generation import GeneratingModel, up_to_mask
from lmft.modules.labels import batch_of_labels
from lmft.modules.visibility import Sight
from lmft.reporting.model_card import FamilyCard


class CausalLanguageModel(GeneratingModel):
    """Any model of AutoModelForCausalLM that attends to the left only. It continues a text, or answers in a
    chat.

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
        """The decoder: OPT's is inside its base model, and called past it."""
        decoder = self.model.get_decoder()
        # ModernBERT's decoder calls its output projection `decoder`, by which transformers takes it for one.
        return decoder if isinstance(decoder, PreTrainedModel) else self.model.base_model

    def trial(self, tokens: Tensor) -> tuple[dict[str, Tensor], list[Sight]]:
        """Has predictions see what stands before them, and nothing of what stands behind them."""
        both = torch.ones(len(tokens), len(tokens), dtype=torch.bool)
        return {"input_ids": tokens[None]}, [
            Sight("input_ids", both.triu(1), False, "sees the tokens that it is to predict"),
            Sight(
                "input_ids", both.tril(-1), True, "does not see the tokens before the one that it predicts"
            ),
        ]

    def inputs_with_labels(self, batch: Mapping[str, Any]) -> Batch:
        """Return the Batch of `input_ids` [B, T] and `labels` [B, T], each predicted from the position before
        it.
        """
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        labels = batch["labels"]
        positions = torch.arange(labels.numel()).view_as(labels)
        return batch_of_labels(inputs, labels[:, 1:].flatten(), predicted_from=positions[:, :-1].flatten())

    def prompt_ids(self, prompt: Any) -> list[int]:
        """A text, of which what stands before a `[MASK]` counts, or {"chat": TEXT | MESSAGES} in its chat
        template.
        """
        if isinstance(prompt, dict):
            ids = self._render(messages_of(prompt["chat"]), answer_follows=True)
        else:
            ids = self.text_ids(self.shown(prompt))
        start: Any = self.tokenizer.bos_token_id
        start = self.tokenizer.eos_token_id if start is None else start
        if not ids and start is None:
            raise UserError(
                "an empty prompt: the tokenizer has no token that begins a text", fix='prompt="…"'
            )
        return ids or [start]

    def shown(self, prompt: Any) -> str:
        """A chat by its last message, a text up to its first `[MASK]`."""
        if isinstance(prompt, dict):
            return str(messages_of(prompt["chat"])[-1]["content"])
        return up_to_mask(str(prompt))

    def max_new_tokens_left(self, num_tokens: int) -> int:
        """Positions that prompts leave."""
        room = self._room_behind(num_tokens)
        if room < 1:
            raise UserError(
                f"a prompt of {num_tokens} tokens fills the model's {num_tokens + room} positions"
            )
        return room

    @torch.no_grad()
    def teacher_forced(self, prompt: Any, completion: str) -> dict[str, Any]:
        """What the model would have said at each token of the completion, had all before it been said as
        given.

        Without a completion, each token of the prompt but the first is looked at. {"prompt", "completion",
        "tokens": [{"token", "predicted", "probability", "rank"}]}; probability and rank (from 1) are those of
        the true token.
        """
        ids = self.prompt_ids(prompt)
        whole = self._whole_ids(prompt, completion) if completion else ids
        room = self._room_behind(len(whole))
        if room < 0:
            raise UserError(
                f"a text of {len(whole)} tokens is longer than the model's {len(whole) + room} positions"
            )
        known = max(
            1, next((i for i, (a, b) in enumerate(zip(ids, whole, strict=False)) if a != b), len(ids))
        )
        known = known if completion else 1
        # [n, V].
        logits = self.model(input_ids=torch.tensor([whole], device=self.device)).logits[0, known - 1 : -1]
        probabilities = logits.float().softmax(-1)
        true = torch.tensor(whole[known:], device=self.device)
        of_true = probabilities.gather(1, true[:, None])  # [n, 1]
        ranks = (probabilities > of_true).sum(-1) + 1
        likeliest = probabilities.argmax(-1).tolist()
        tokens = [
            {
                "token": str(self.tokenizer.decode([token])),
                "predicted": str(self.tokenizer.decode([predicted])),
                "probability": probability,
                "rank": rank,
            }
            for token, predicted, probability, rank in zip(
                true.tolist(), likeliest, of_true[:, 0].tolist(), ranks.tolist(), strict=True
            )
        ]
        return {"prompt": self.shown(prompt), "completion": completion, "tokens": tokens}

    def _room_behind(self, num_tokens: int) -> int:
        """Positions that are left behind so many tokens."""
        return (max_positions(self.model.config) or 10**9) - num_tokens

    def _whole_ids(self, prompt: Any, completion: str) -> list[int]:
        if isinstance(prompt, dict):
            turns = [*messages_of(prompt["chat"]), {"role": "assistant", "content": completion}]
            return self._render(turns, answer_follows=False)
        end: Any = self.tokenizer.eos_token_id
        return self.text_ids(self.shown(prompt) + completion) + ([] if end is None else [end])

    def _render(self, messages: list[dict[str, Any]], answer_follows: bool) -> list[int]:
        if not self.tokenizer.chat_template:
            raise UserError("the tokenizer has no chat template", fix='prompt="…" instead of chat="…"')
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=answer_follows
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise UserError(
                f"the chat template refuses the chat: {' '.join(str(error).split())}", "chat"
            ) from error
        # White space behind the last end of turn is the template's: nobody is to say it.
        return self.text_ids(str(text) if answer_follows else str(text).rstrip(), add_special_tokens=False)


def messages_of(chat: Any) -> list[dict[str, Any]]:
    """A chat's messages; a text alone is what the user says."""
    return [{"role": "user", "content": chat}] if isinstance(chat, str) else list(chat)
