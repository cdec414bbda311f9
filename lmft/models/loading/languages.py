"""Languages of tokenizers that mark each text with one: mBART, NLLB, M2M100, PLBart, SeamlessM4T."""

import logging
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from lmft.errors import UserError, did_you_mean

log = logging.getLogger(__name__)


def language_codes(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return {code: the tokenizer's own spelling of it}; empty if the tokenizer marks no languages.

    SeamlessM4T and PLBart write `eng` and `java` as `__eng__` and `__java__`.
    """
    if not hasattr(tokenizer, "src_lang"):
        return {}
    known = getattr(tokenizer, "lang_code_to_id", None)
    if known is None:
        names = {str(token) for token in tokenizer.special_tokens_map.values() if isinstance(token, str)}
        known = [token for token in tokenizer.all_special_tokens if token not in names]
    return {code.strip("_"): code for code in known if _token_id(tokenizer, code) is not None}


def set_languages(
    tokenizer: PreTrainedTokenizerBase, source: str | None, target: str | None, has_pairs: bool
) -> None:
    """Set the languages of the texts that the tokenizer encodes.

    Args:
        tokenizer: changed in place.
        source: code of the language of sources, or of plain texts; None: not named.
        target: code of the language of the pairs' targets; None: not named.
        has_pairs: whether texts are pairs; plain texts are written in the language they are read in.

    Raises: UserError if a code is unknown, the languages of pairs are not named, or the tokenizer marks
        none.
    """
    codes = language_codes(tokenizer)
    named = {"source": source, "target": target}
    options = " ".join(
        f"data.{side}_language={code}" for side, code in named.items() if code is not None
    )
    if not codes:
        if options:
            what = f"{type(tokenizer).__name__} marks no text with its language"
            raise UserError(what, options, "leave it out")
        return
    listed = ", ".join(sorted(codes))
    for side, code in named.items():
        if code is not None and code.strip("_") not in codes:
            hint = did_you_mean(code, codes)
            what = f"data.{side}_language={code} is not a language of the tokenizer{hint}"
            raise UserError(what, type(tokenizer).__name__, f"one of: {listed}")
    if has_pairs and (source is None or target is None):
        what = "the tokenizer marks texts with their language, and those of the pairs are not named"
        fix = f"data.source_language=CODE data.target_language=CODE, each one of: {listed}"
        raise UserError(what, type(tokenizer).__name__, fix)
    if source is None:
        log.warning(
            "texts are marked as %s, the tokenizer's own choice; data.source_language names another",
            _any(tokenizer).src_lang,
        )
        source = str(_any(tokenizer).src_lang).strip("_")
    chosen = {"src_lang": codes[source.strip("_")]}
    chosen["tgt_lang"] = codes[(target or source).strip("_")]
    for name, code in chosen.items():
        setattr(tokenizer, name, code)
        tokenizer.init_kwargs[name] = code  # what the exported tokenizer remembers
    _any(tokenizer)._switch_to_input_mode()


def decoder_starts(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return options of generation with which a decoder begins to write the target's language.

    mBART's and PLBart's targets end with their language, and the decoder's first input is that token
    (their models shift the last token to the front). In the others, it is the first token that is
    written.
    """
    if not language_codes(tokenizer):
        return {}
    language = _token_id(tokenizer, str(_any(tokenizer).tgt_lang))
    assert language is not None  # `set_languages` has checked the code, or the tokenizer its own
    template: list[int] = tokenizer(text_target="", verbose=False)["input_ids"]  # pyright: ignore[reportAssignmentType]
    if template[-1] == language:
        return {"decoder_start_token_id": language}
    return {"forced_bos_token_id": language}


def _token_id(tokenizer: PreTrainedTokenizerBase, code: str) -> int | None:
    """Return the id of a language's token, which M2M100 writes `__en__` and lists in no vocabulary."""
    for token in (code, f"__{code}__"):
        token_id = tokenizer.convert_tokens_to_ids(token)
        if token_id is not None and token_id != tokenizer.unk_token_id:
            return int(token_id)  # pyright: ignore[reportArgumentType]
    return None


def set_decoder_start(hf_config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the first input of the decoder in the model's config, if that depends on the language."""
    starts = decoder_starts(tokenizer)
    if "decoder_start_token_id" in starts:
        hf_config.decoder_start_token_id = starts["decoder_start_token_id"]
    elif starts and getattr(hf_config, "decoder_start_token_id", None) is None:
        hf_config.decoder_start_token_id = (
            tokenizer.eos_token_id
        )  # mBART-50, as it shifts the last token


def set_generation(generation_config: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make generation write the target's language, here and in the exported model."""
    for name, token_id in decoder_starts(tokenizer).items():
        setattr(generation_config, name, token_id)


def _any(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return the tokenizer for attributes that only some classes have."""
    return tokenizer
