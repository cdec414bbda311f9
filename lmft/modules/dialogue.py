"""A dialogue with a causal model: its messages, and the next answer, token by token."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, StoppingCriteria, StoppingCriteriaList, TextStreamer

from lmft.errors import UserError
from lmft.models.loading.positions import max_positions
from lmft.modules.causal import CausalLanguageModel

_SHARE_FOR_ANSWER = 4  # at least a fourth of the positions is left for an answer that may be longer


class Dialogue:
    """The messages of a chat, and the model that answers.

    A chat that is longer than the model loses its oldest turns, a question and its answer at a time;
    the system message stays.
    """

    def __init__(
        self,
        module: CausalLanguageModel,
        options: dict[str, Any],
        variables: dict[str, Any] | None = None,
        system: str | None = None,
    ):
        """Begin a dialogue.

        Args:
            module: the model.
            options: arguments of `generate`, `max_new_tokens` among them.
            variables: of the chat template.
            system: the system message, if there is one.
        """
        self.module = module
        self.options = options
        self.variables = variables
        self.system = system
        self.turns: list[dict[str, str]] = []  # messages of user and assistant
        self.num_left_out = 0  # of the oldest messages, in the last prompt
        self.cut_by: str | None = None  # what ended the last answer, if it did not end by itself

    def reset(self) -> None:
        """Forget all but the system message."""
        self.turns = []
        self.num_left_out = 0

    def undo(self) -> str | None:
        """Forget the last question and its answer; return the question, None if there is none."""
        for place in reversed(range(len(self.turns))):
            if self.turns[place]["role"] == "user":
                question = self.turns[place]["content"]
                del self.turns[place:]
                return question
        return None

    def answer(self, text: str, write: Callable[[str], object], is_stopped: Callable[[], bool]) -> str:
        """Answer a message, and add both to the dialogue.

        Args:
            text: what the user says.
            write: called with each part of the answer as soon as it is there.
            is_stopped: asked after each token whether the answer is to end.

        Raises: UserError, with the dialogue left as it was, if the chat template refuses the message, or
            it is longer than the model.
        """
        turns = [*self.turns, {"role": "user", "content": text}]
        ids, self.num_left_out = self._prompt(turns)
        num_new = min(self.options["max_new_tokens"], self.module.max_new_tokens_left(len(ids)))
        options = {
            **self.options,
            "max_new_tokens": num_new,
            "streamer": _Streamer(self.module.tokenizer, write),
            "stopping_criteria": StoppingCriteriaList([_Stopped(is_stopped)]),
        }
        (new_ids,) = self.module.generate([ids], options)
        self.cut_by = None
        if len(new_ids) == num_new and not is_stopped():
            is_wanted = num_new == self.options["max_new_tokens"]
            self.cut_by = (
                f"max_new_tokens={num_new}" if is_wanted else "the model has no further positions"
            )
        answer = self.module.answer_of(None, new_ids).strip()
        self.turns = [*turns, {"role": "assistant", "content": answer}]
        return answer

    def _prompt(self, turns: list[dict[str, str]]) -> tuple[list[int], int]:
        """Return the tokens of the prompt, and how many of the oldest turns are left out."""
        longest = max_positions(self.module.model.config)
        starts = [place for place, turn in enumerate(turns) if turn["role"] == "user"]
        if longest is None:
            return self.module.prompt_ids(self._chat(turns)), 0
        most = longest - min(self.options["max_new_tokens"], longest // _SHARE_FOR_ANSWER)
        num_tokens = 0
        for start in starts:
            ids = self.module.prompt_ids(self._chat(turns[start:]))
            if len(ids) <= most:
                return ids, start
            num_tokens = len(ids)
        what = f"the message makes {num_tokens} tokens, and the model's {longest} positions leave {most}"
        raise UserError(f"{what} for it", fix="a shorter message")

    def _chat(self, turns: list[dict[str, str]]) -> dict[str, Any]:
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return {"chat": [*system, *turns], "chat_template_kwargs": self.variables}


class _Streamer(TextStreamer):
    """Passes on the text of an answer, word by word."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, write: Callable[[str], object]):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write = write

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Write a part of the answer."""
        self._write(text)


class _Stopped(StoppingCriteria):
    """Ends an answer when it is asked to."""

    def __init__(self, is_stopped: Callable[[], bool]):
        self._is_stopped = is_stopped

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return for each row whether it ends. [B] bool"""
        return input_ids.new_full((len(input_ids),), self._is_stopped(), dtype=torch.bool)
