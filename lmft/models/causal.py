"""Causal language models: each token from those before it; they continue text, and answer in chats."""

from collections.abc import Sequence
from typing import Any, ClassVar

import jinja2
import torch
from torch import Tensor, nn

from lmft.errors import UserError
from lmft.models.base import LanguageModel
from lmft.models.loading import max_positions


class CausalLanguageModel(LanguageModel):
    """Any model of AutoModelForCausalLM that attends to the left only."""

    task: ClassVar[str] = "text-generation"
    is_causal: ClassVar[bool] = True
    body_options: ClassVar[dict[str, Any]] = {"use_cache": False}  # nothing is generated while training

    @property
    def body(self) -> nn.Module:
        """The decoder: OPT's is inside its base model, and called past it."""
        return self.model.get_decoder()

    def answer(self, prompts: Sequence[Any]) -> list[dict[str, Any]]:
        """Continues each prompt, once greedily and once by sampling under the run's seed, all prompts in one batch.

        A prompt is a text, of which what stands before a `[MASK]` counts, or {"chat": TEXT | MESSAGES}, which the
        tokenizer's chat template is put around.
        [{"prompt": …, "texts": {"greedy": …, "sampled": …}}]
        """
        if not prompts:
            return []
        options = dict(self.generation)
        encoded = [self._prompt_ids(prompt) for prompt in prompts]
        longest = max(map(len, encoded))
        room = self._room_behind(longest)
        if room < 1:
            raise UserError(f"a prompt of {longest} tokens fills the model's {longest + room} positions")
        limit = {"max_new_tokens": min(options.pop("max_new_tokens", 40), room)}
        greedy = self._generate(encoded, {**limit, "do_sample": False})
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            sampled = self._generate(encoded, {**limit, "do_sample": True, **options})
        return [
            {"prompt": shown(prompt), "texts": {"greedy": first, "sampled": second}}
            for prompt, first, second in zip(prompts, greedy, sampled, strict=True)
        ]

    @torch.no_grad()
    def teacher_forced(self, prompt: Any, completion: str) -> dict[str, Any]:
        """What the model would have said at each token of the completion, had all before it been said as given.

        Without a completion, each token of the prompt but the first is looked at.
        {"prompt", "completion", "tokens": [{"token", "predicted", "probability", "rank"}]}; probability and rank (from
        1) are those of the true token.
        """
        ids = self._prompt_ids(prompt)
        whole = self._whole_ids(prompt, completion) if completion else ids
        room = self._room_behind(len(whole))
        if room < 0:
            raise UserError(f"a text of {len(whole)} tokens is longer than the model's {len(whole) + room} positions")
        known = max(1, next((i for i, (a, b) in enumerate(zip(ids, whole, strict=False)) if a != b), len(ids)))
        known = known if completion else 1
        logits = self.model(input_ids=torch.tensor([whole], device=self.device)).logits[0, known - 1 : -1]  # [n, V]
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
        return {"prompt": shown(prompt), "completion": completion, "tokens": tokens}

    def _room_behind(self, num_tokens: int) -> int:
        """Positions that are left behind so many tokens."""
        return (max_positions(self.model.config) or 10**9) - num_tokens

    def _prompt_ids(self, prompt: Any) -> list[int]:
        if isinstance(prompt, dict):
            ids = self._render(messages_of(prompt["chat"]), answer_follows=True)
        else:
            ids = self._ids(shown(prompt))
        start: Any = self.tokenizer.bos_token_id
        start = self.tokenizer.eos_token_id if start is None else start
        if not ids and start is None:
            raise UserError("an empty prompt: the tokenizer has no token that begins a text", fix='prompt="…"')
        return ids or [start]

    def _whole_ids(self, prompt: Any, completion: str) -> list[int]:
        if isinstance(prompt, dict):
            turns = [*messages_of(prompt["chat"]), {"role": "assistant", "content": completion}]
            return self._render(turns, answer_follows=False)
        end: Any = self.tokenizer.eos_token_id
        return self._ids(shown(prompt) + completion) + ([] if end is None else [end])

    def _render(self, messages: list[dict[str, Any]], answer_follows: bool) -> list[int]:
        if not self.tokenizer.chat_template:
            raise UserError("the tokenizer has no chat template", fix='prompt="…" instead of chat="…"')
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer_follows)
        except (jinja2.TemplateError, TypeError) as error:
            raise UserError(f"the chat template refuses the chat: {' '.join(str(error).split())}", "chat") from error
        # White space behind the last end of turn is the template's: nobody is to say it.
        return self._ids(str(text) if answer_follows else str(text).rstrip(), add_special_tokens=False)

    def _ids(self, text: str, **options: Any) -> list[int]:
        encoded: Any = self.tokenizer(text, **options)
        return encoded["input_ids"]

    @torch.no_grad()
    def _generate(self, prompts: list[list[int]], options: dict[str, Any]) -> list[str]:
        """The new text behind each prompt."""
        ends = _as_list(self.model.generation_config.eos_token_id) + _as_list(self.tokenizer.eos_token_id)
        pad = self.tokenizer.pad_token_id
        pad = pad if pad is not None else (ends or [0])[0]
        longest = max(map(len, prompts))
        ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts], device=self.device)
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        try:
            made: Tensor = self.model.generate(  # pyright: ignore[reportCallIssue, reportAssignmentType]
                input_ids=ids,
                attention_mask=mask.to(self.device),
                pad_token_id=pad,
                eos_token_id=sorted(set(ends)) or None,
                **options,
            )
        except ValueError as error:
            raise UserError(
                f"`generate` refuses its options: {' '.join(str(error).split())}", "model.generation"
            ) from error
        return [str(text) for text in self.tokenizer.batch_decode(made[:, longest:], skip_special_tokens=True)]


def messages_of(chat: Any) -> list[dict[str, Any]]:
    """A chat's messages; a text alone is what the user says."""
    return [{"role": "user", "content": chat}] if isinstance(chat, str) else list(chat)


def shown(prompt: Any) -> str:
    """A prompt for people: a chat by its last message, a text up to its first `[MASK]`."""
    if isinstance(prompt, dict):
        return str(messages_of(prompt["chat"])[-1]["content"])
    return str(prompt).partition("[MASK]")[0].rstrip() if "[MASK]" in str(prompt) else str(prompt)


def _as_list(ids: Any) -> list[int]:
    return [] if ids is None else list(ids) if isinstance(ids, list | tuple) else [ids]
