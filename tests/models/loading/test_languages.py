"""A model that translates is taught, and told, to write the language of the pairs' targets."""

import json

import numpy as np
import pytest
import torch
from tokenizers import AddedToken
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    M2M100Config,
    MBart50Tokenizer,
    MBartConfig,
    MBartTokenizer,
    NllbTokenizer,
    PreTrainedTokenizerFast,
)

from lmft.assembly import assemble
from lmft.config.load import compose
from lmft.data.batch import Batch
from lmft.errors import UserError
from lmft.models.export import export
from lmft.models.loading.languages import language_codes
from lmft.objectives.base import IGNORED
from tests.helpers.models import TEXTS, WORDS

SIZES = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
KINDS = {
    "mbart": (MBartTokenizer, MBartConfig, ("en_XX", "ro_RO")),
    "mbart50": (MBart50Tokenizer, MBartConfig, ("en_XX", "ro_RO")),
    "nllb": (NllbTokenizer, M2M100Config, ("eng_Latn", "ron_Latn")),
}
PAIRS = [(text, " ".join(text.split()[:4])) for text in TEXTS]


@pytest.fixture(scope="module", params=KINDS)
def case(request, tmp_path_factory):
    """A model's folder, its languages, and a file of pairs."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer_class, config_class, languages = KINDS[request.param]
    tokenizer = tokenizer_class()
    tokenizer.add_tokens([AddedToken(word) for word in WORDS.split()])
    tokenizer.save_pretrained(folder / "model")
    config = config_class(vocab_size=len(tokenizer), pad_token_id=1, bos_token_id=0, eos_token_id=2, **SIZES)
    torch.manual_seed(0)
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder / "model")
    rows = [json.dumps({"source": source, "target": target}) for source, target in PAIRS]
    (folder / "pairs.jsonl").write_text("\n".join(rows))
    return folder, languages


def parts_of(folder, *more: str):
    arguments = ["model=seq2seq", f"model.name_or_path={folder}/model", "objective=pairs", "data=pairs"]
    sizes = ["data.max_source_tokens=60", "data.max_target_tokens=60", "data.validation_fraction=0.3"]
    files = [f"data.train={folder}/pairs.jsonl", f"data.cache_dir={folder}/cache", "trainer.max_steps=2"]
    return assemble(compose([*arguments, *sizes, *files, "data.batch_size=4", *more]))


def told(languages: tuple[str, str]) -> list[str]:
    return [f"data.source_language={languages[0]}", f"data.target_language={languages[1]}"]


def targets_of(batch: Batch) -> list[list[int]]:
    """The targets of each row."""
    real = batch.targets != IGNORED
    rows = batch.target_index[real] // batch.inputs["decoder_input_ids"].shape[1]
    return [batch.targets[real][rows == row].tolist() for row in range(len(batch.inputs["input_ids"]))]


def test_targets_are_the_tokenizers_own(case):
    folder, languages = case
    parts = parts_of(folder, *told(languages))
    tokenizer = AutoTokenizer.from_pretrained(folder / "model", src_lang=languages[0], tgt_lang=languages[1])
    whole = {}
    for source, target in PAIRS:
        both = tokenizer(source, text_target=target)
        whole[tuple(both["input_ids"])] = both["labels"]
    data = parts.datamodule()
    batch = data.batch(np.arange(len(parts.corpus.examples["train"])))
    for ids, mask, targets, given in zip(
        batch.inputs["input_ids"].tolist(),
        batch.inputs.get("attention_mask", torch.ones_like(batch.inputs["input_ids"])).tolist(),
        targets_of(batch),
        batch.inputs["decoder_input_ids"].tolist(),
        strict=True,
    ):
        assert targets == whole[tuple(ids[: sum(mask)])]
        assert given[1 : len(targets)] == targets[:-1]


def test_decoders_begin_as_the_models_own_training_does(case):
    folder, languages = case
    parts = parts_of(folder, *told(languages))
    batch = parts.datamodule().batch([0])
    labels = torch.tensor(targets_of(batch))
    model = parts.module().model.eval()
    with torch.no_grad():
        own = model(input_ids=batch.inputs["input_ids"], labels=labels).loss
        given = model(**batch.inputs).logits.flatten(0, 1)[batch.target_index]
    ours = torch.nn.functional.cross_entropy(given, batch.targets, ignore_index=IGNORED)
    torch.testing.assert_close(ours, own)


def test_the_exported_model_writes_the_targets_language(case, tmp_path):
    folder, languages = case
    parts = parts_of(folder, *told(languages))
    module = parts.module()
    language = parts.tokenizer.convert_tokens_to_ids(languages[1])
    export(module.exported, parts.tokenizer, lambda writing: None, tmp_path / "model")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == languages
    made = model.generate(**tokenizer(TEXTS[0], return_tensors="pt"), max_new_tokens=4)[0].tolist()
    assert language in made[:2]
    assert language in module.eval().generate([module.prompt_ids(TEXTS[0])], {"max_new_tokens": 4})[0] or (
        model.generation_config.decoder_start_token_id == language
    )


def test_pairs_need_both_languages(case):
    folder, (source, target) = case
    for named in ([], [f"data.source_language={source}"], [f"data.target_language={target}"]):
        with pytest.raises(UserError, match="those of the pairs are not named") as error:
            parts_of(folder, *named)
        assert "data.source_language=CODE data.target_language=CODE" in error.value.fix
        assert source in error.value.fix


def test_an_unknown_language_is_refused_with_the_known_ones(case):
    folder, (source, target) = case
    with pytest.raises(UserError, match=r"data\.target_language=klingon is not a language") as error:
        parts_of(folder, f"data.source_language={source}", "data.target_language=klingon")
    assert target in error.value.fix


def test_plain_texts_are_marked_with_their_language(case, caplog):
    folder, (source, target) = case
    (folder / "text.txt").write_text("\n".join(TEXTS))
    plain = ["data=lines", f"data.train={folder}/text.txt", "objective=text_infilling", "data.block_size=60"]
    arguments = ["model=seq2seq", f"model.name_or_path={folder}/model", f"data.cache_dir={folder}/cache", *plain]
    arguments += ["data.validation_fraction=0.3", "data.batch_size=4", "trainer.max_steps=2"]
    parts = assemble(compose([*arguments, f"data.source_language={target}"]))
    language = parts.tokenizer.convert_tokens_to_ids(target)
    batch = parts.datamodule().batch([0])
    assert language in targets_of(batch)[0]
    assert "the tokenizer's own choice" not in caplog.text
    assemble(compose(arguments))
    assert f"texts are marked as {source}, the tokenizer's own choice" in caplog.text
    with pytest.raises(UserError, match="is read only for pairs"):
        assemble(compose([*arguments, f"data.target_language={target}"]))


def test_a_tokenizer_without_languages_takes_none(t5_tokenizer):
    assert language_codes(t5_tokenizer) == {}
    assert isinstance(t5_tokenizer, PreTrainedTokenizerFast)
