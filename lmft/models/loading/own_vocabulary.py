"""Compare a tokenizer with the model's own, and find the row of each of its tokens."""

import logging
from collections.abc import Callable, Iterable

from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from lmft.errors import UserError
from lmft.models.config import ModelConfig
from lmft.models.loading.hf_config import folders_of
from lmft.models.loading.positions import counts_from_padding
from lmft.models.loading.rows import Rows
from lmft.models.loading.tokenizer_files import (
    has_vocabulary,
    plain_backend,
    read_tokenizer,
    require_fast,
)
from lmft.system.token_ids import num_ids

log = logging.getLogger(__name__)
# Roles of special tokens in transformers; a token of one role may stand for the others after it.
_SAME_ROLE = {
    "pad": ("pad",),
    "unk": ("unk",),
    "mask": ("mask",),
    "cls": ("cls", "bos"),
    "bos": ("bos", "cls"),
    "sep": ("sep", "eos"),
    "eos": ("eos", "sep"),
}
_UNDECODABLE = "\ufffd"  # a part of a character's bytes decodes to it


def rows_of(
    config: ModelConfig, hf_config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast
) -> Rows:
    """Return where the rows of the tokenizer's tokens come from in the loaded model.

    Args:
        config: the model's options; the model is not new.
        hf_config: the model's config.
        tokenizer: the tokenizer, which may be another one than the model's own.

    Raises: UserError if ids stand for other tokens than in the model's own tokenizer, and the rows are
        not to be replaced.
    """
    options = config.tokenizer
    if options.name_or_path == config.name_or_path and not options.train and not options.add_tokens:
        return Rows(num_ids(tokenizer), new={})
    own = own_tokenizer(config, hf_config)
    if own is None:
        return _rows_without_comparison(config, tokenizer)
    require_fast(tokenizer)
    require_fast(own)
    own_tokens = {token_id: token for token, token_id in own.get_vocab().items()}
    tokens = {token_id: token for token, token_id in tokenizer.get_vocab().items()}
    others = [i for i, token in tokens.items() if own_tokens.get(i, token) != token]
    if not others:
        text_of = decoder_of(tokenizer)
        own_pieces = divider_of(own)
        added = sorted(tokens.keys() - own_tokens.keys())
        new = {token_id: own_pieces(text_of(token_id)) for token_id in added}
        return Rows(num_ids(tokenizer), new)
    if not options.replace:
        example = min(others)
        share = f"{100 * len(others) / len(tokens):.3g}%"
        raise UserError(
            f"{share} of the tokenizer's {len(tokens):,} ids stand for other tokens than in the model's "
            f"own: {example} is {tokens[example]!r}, not {own_tokens[example]!r}",
            f"{_name(config)} with {config.name}",
            "model.tokenizer.replace=true moves the rows of tokens that both know, and starts the rest "
            "as the mean of their old pieces; or model.from_scratch=true",
        )
    return _moved_rows(config, hf_config, own, tokenizer)


def own_tokenizer(config: ModelConfig, hf_config: PreTrainedConfig) -> PreTrainedTokenizerFast | None:
    """Return the tokenizer in the model's folder; None if it has none. Raises: UserError."""
    model, adapters = folders_of(config)
    for folder in (*reversed(adapters), model):
        if has_vocabulary(folder):
            return read_tokenizer(folder, config.hub_options, hf_config)
    return None


def _name(config: ModelConfig) -> str:
    if config.tokenizer.train:
        return "a trained vocabulary"
    return str(config.tokenizer.name_or_path)


def _rows_without_comparison(config: ModelConfig, tokenizer: PreTrainedTokenizerFast) -> Rows:
    options = config.tokenizer
    needs = next((name for name in ("replace", "add_tokens") if getattr(options, name)), None)
    if needs:
        raise UserError(
            f"{config.name} has no tokenizer of its own, so the token of each embedding is not known",
            f"model.tokenizer.{needs}",
            "save the model's tokenizer into its folder",
        )
    log.warning(
        "%s has no tokenizer of its own, so nothing can tell whether %s belongs to its weights",
        config.name,
        _name(config),
    )
    return Rows(num_ids(tokenizer), new={})


def _moved_rows(
    config: ModelConfig,
    hf_config: PreTrainedConfig,
    own: PreTrainedTokenizerFast,
    tokenizer: PreTrainedTokenizerFast,
) -> Rows:
    """Return rows that are moved to their tokens' new ids. Raises: UserError if positions would move."""
    text_of = decoder_of(tokenizer)
    own_text_of = decoder_of(own)
    own_pieces = divider_of(own)
    own_special = set(own.all_special_ids)
    special = set(tokenizer.all_special_ids)
    own_ids = {own_text_of(i): i for i in own.get_vocab().values() if i not in own_special}
    moved: dict[int, int] = {}
    new: dict[int, list[int]] = {}
    for token_id in sorted(tokenizer.get_vocab().values()):
        if token_id in special:
            old_id = _id_of_same_role(token_id, tokenizer, own)
        else:
            old_id = own_ids.get(text_of(token_id))
        if old_id is None:
            new[token_id] = own_pieces(text_of(token_id))
        else:
            moved[token_id] = old_id
    if counts_from_padding(hf_config) and tokenizer.pad_token_id != own.pad_token_id:
        raise UserError(
            f"{hf_config.model_type} counts positions from the id of its padding token, "
            f"{own.pad_token_id}, which is {tokenizer.pad_token_id} in the other vocabulary",
            _name(config),
            f"a vocabulary whose padding token has id {own.pad_token_id}",
        )
    log.info(
        "%s replaces the model's own vocabulary: %s of its %s tokens keep their rows, %s start as the "
        "mean of their old pieces",
        _name(config),
        f"{len(moved):,}",
        f"{len(moved) + len(new):,}",
        f"{len(new):,}",
    )
    return Rows(num_ids(tokenizer), new, moved)


def _id_of_same_role(
    token_id: int, tokenizer: PreTrainedTokenizerFast, own: PreTrainedTokenizerFast
) -> int | None:
    """Return the model's own id of a special token: by its text, else by its role."""
    same_text = own.get_vocab().get(str(tokenizer.convert_ids_to_tokens(token_id)))
    if same_text is not None:
        return same_text
    for role, own_roles in _SAME_ROLE.items():
        if getattr(tokenizer, f"{role}_token_id") != token_id:
            continue
        for own_role in own_roles:
            own_id = getattr(own, f"{own_role}_token_id")
            if own_id is not None:
                return own_id
    return None


def decoder_of(tokenizer: PreTrainedTokenizerFast) -> Callable[[int], str]:
    """Return the function from an id to the text that its token adds to a text.

    The text begins with a space if the token begins a word. A token that is a part of a character's
    bytes gives the token as the vocabulary spells it.
    """
    backend = tokenizer.backend_tokenizer
    anchor = _a_letter(tokenizer)
    before = backend.decode([anchor], skip_special_tokens=False)

    def text_of(token_id: int) -> str:
        text = backend.decode([anchor, token_id], skip_special_tokens=False)
        if text.startswith(before) and _UNDECODABLE not in text:
            return text[len(before) :]
        return str(tokenizer.convert_ids_to_tokens(token_id))

    return text_of


def _a_letter(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the smallest id of a token that is one letter; the smallest id if there is none."""
    ids = sorted(tokenizer.get_vocab().values())
    letters: Iterable[int] = (
        i for i in ids if len(text := str(tokenizer.decode([i])).strip()) == 1 and text.isalpha()
    )
    return next(iter(letters), ids[0])


def divider_of(own: PreTrainedTokenizerFast) -> Callable[[str], list[int]]:
    """Return the function from a text to the ids of its pieces in the model's own vocabulary.

    Unknown pieces are left out.
    """
    backend = plain_backend(own)

    def pieces_of(text: str) -> list[int]:
        ids = backend.encode(text, add_special_tokens=False).ids
        return [token_id for token_id in ids if token_id != own.unk_token_id]

    return pieces_of
