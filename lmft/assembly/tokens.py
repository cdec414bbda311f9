"""The tokenizer of a config: its tokens, those added to it, and what objectives need to know of them."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from lmft.data.config import DataConfig
from lmft.data.formats.backend import backend_of
from lmft.data.formats.base import id_of
from lmft.data.formats.chat.format import chat_template
from lmft.data.formats.chat.turn_end import TurnEnds, turn_ends
from lmft.data.training_texts import TrainingTexts, training_text_key
from lmft.errors import UserError
from lmft.models.config import ModelConfig
from lmft.models.loading.languages import set_decoder_start, set_languages
from lmft.models.loading.own_vocabulary import rows_of
from lmft.models.loading.rows import Rows
from lmft.models.loading.tokenizer import load_tokenizer
from lmft.models.loading.weights import fit_to_tokenizer
from lmft.objectives.base import Objective, Vocabulary
from lmft.objectives.span_corruption import sentinel, sentinel_ids
from lmft.system.token_ids import num_ids

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tokens:
    """The tokenizer of a config, with all that has to be known about its tokens."""

    tokenizer: PreTrainedTokenizerFast
    new: list[str]
    """Special tokens that were added to it."""
    rows: Rows | None
    """Where the rows of its tokens come from; None: the model is new."""
    vocabulary: Vocabulary
    """The properties of tokenizer and model that the objective uses."""
    ends: TurnEnds
    """How the texts and answers that a causal model learns to write end."""


def tokens_of(
    model: ModelConfig,
    hf_config: PreTrainedConfig,
    data: DataConfig,
    objective: Objective,
    kept: Path | None,
) -> Tokens:
    """Load or train the tokenizer, and add the tokens that chat template and objective need.

    Args:
        model: the options of the model.
        hf_config: its Hugging Face config.
        data: the options of the text.
        objective: what the model is trained on.
        kept: folder with the vocabulary trained when this run was first started, if any.

    Raises: UserError.
    """
    tokenizer = load_tokenizer(
        model, TrainingTexts(data), lambda: training_text_key(data), data.cache, kept, hf_config
    )
    set_languages(tokenizer, data.source_language, data.target_language, "pairs" in data.formats)
    rows = None
    if not model.from_scratch:
        rows = rows_of(model, hf_config, tokenizer)
    new = _add_tokens(tokenizer, data, objective)
    if rows is not None:
        rows = rows.with_new([tokenizer.get_vocab()[token] for token in new])
    _check_warm_up(model, rows)
    vocabulary = _checked_vocabulary(tokenizer, model, hf_config, rows, objective, data)
    return Tokens(tokenizer, new, rows, vocabulary, _ends(tokenizer, data))


def _add_tokens(tokenizer: PreTrainedTokenizerFast, data: DataConfig, objective: Objective) -> list[str]:
    """Set the chat template; add the tokens that template and objective need, and return them."""
    known = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    known |= {sentinel(number) for number in sentinel_ids(tokenizer.get_vocab())}
    needed = objective.new_tokens(known)
    template = chat_template(data, tokenizer) if "chat" in data.formats else None
    if template:
        needed += template.special_tokens
        tokenizer.chat_template = template.source
        if template.eos_token:
            tokenizer.eos_token = template.eos_token
    new = [token for token in dict.fromkeys(needed) if token not in known]
    tokenizer.add_special_tokens({"extra_special_tokens": new}, replace_extra_special_tokens=False)
    return new


def _ends(tokenizer: PreTrainedTokenizerFast, data: DataConfig) -> TurnEnds:
    """Return the tokens at the ends of texts and of a chat's answers, where generation has to stop."""
    ends = TurnEnds([], is_open=False)
    template = chat_template(data, tokenizer) if "chat" in data.formats else None
    if template:
        ends = turn_ends(template, tokenizer)
    if "text" in data.formats:
        ends = replace(ends, ids=[*ends.ids, *backend_of(tokenizer).suffix[-1:]])
    return ends


def warn_of_open_turns(ends: TurnEnds, tokenizer: PreTrainedTokenizerFast) -> None:
    """Log a warning if there are answers after which the model does not learn to stop."""
    if not ends.is_open:
        return
    fix = "data.chat_template=chatml, or a template that ends each answer with a special token"
    if not ends.ids:
        what = (
            "the chat template ends no answer with a special token, so the model will not stop by itself"
        )
        log.warning("%s: limit max_new_tokens or give stop_strings; or %s", what, fix)
        return
    tokens = ", ".join(tokenizer.convert_ids_to_tokens(ends.ids))
    what = "the chat template does not end every answer with a special token, so only some (with %s)"
    log.warning(f"{what} teach the model to stop; %s", tokens, fix)


def _check_warm_up(model: ModelConfig, rows: Rows | None) -> None:
    if model.tokenizer.warm_up_steps and (rows is None or not rows.new):
        raise UserError(
            "no token is new, so there are no new rows to train first",
            "model.tokenizer.warm_up_steps",
            "leave it out, or add words: model.tokenizer.add_tokens=FILE",
        )


def _checked_vocabulary(
    tokenizer: PreTrainedTokenizerFast,
    model: ModelConfig,
    hf_config: PreTrainedConfig,
    rows: Rows | None,
    objective: Objective,
    data: DataConfig,
) -> Vocabulary:
    """Return the objective's Vocabulary. Raises: UserError if the objective cannot use the tokenizer."""
    if model.from_scratch:  # sets decoder_start_token_id, which the Vocabulary below needs
        fit_to_tokenizer(hf_config, tokenizer)
    set_decoder_start(hf_config, tokenizer)
    decoder_start_id = getattr(hf_config, "decoder_start_token_id", None)
    if rows is not None:
        decoder_start_id = rows.new_id(decoder_start_id)
    vocabulary = vocabulary_of(tokenizer, decoder_start_id)
    try:
        objective.check(vocabulary, data.block_size)
    except ValueError as error:
        raise UserError(str(error), where=f"the tokenizer of {model.name}") from error
    return vocabulary


def vocabulary_of(tokenizer: PreTrainedTokenizerFast, decoder_start_id: int | None = None) -> Vocabulary:
    """Return the Vocabulary of a tokenizer, for a seq2seq model with the first token of its decoder."""
    sentinels = sentinel_ids(tokenizer.get_vocab())
    special = {*tokenizer.all_special_ids, *sentinels.values()}
    ordinary = sorted(set(tokenizer.get_vocab().values()) - special)
    return Vocabulary(
        size=num_ids(tokenizer),
        mask_id=id_of(tokenizer, "mask"),
        ordinary_ids=np.array(ordinary, np.int64),
        pad_id=id_of(tokenizer, "pad") or 0,
        bos_id=id_of(tokenizer, "bos"),
        eos_id=id_of(tokenizer, "eos"),
        ids={
            **{str(token): number for number, token in tokenizer.added_tokens_decoder.items()},
            **{sentinel(number): token_id for number, token_id in sentinels.items()},
        },
        decoder_start_id=decoder_start_id,
    )


def check_probes(probes: list[Any], model: ModelConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise UserError for a probe that the model cannot be asked."""
    where = "data.probes and model.probes"
    fix = "use a plain text as the probe"
    chats = [probe for probe in probes if isinstance(probe, dict)]
    for chat in chats:
        if chat.keys() != {"chat"}:
            raise UserError(f"a probe is a text or {{chat: …}}, not {chat}", where)
    if chats and model.family != "causal":
        raise UserError(f"{model.name} is {model.family}, so no probe can be a chat", where, fix)
    if chats and not tokenizer.chat_template:
        raise UserError("the tokenizer has no chat template, so no probe can be a chat", where, fix)
