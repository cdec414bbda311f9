"""Causal models from their first step to a folder that others load: text, chats, adapters, frozen parts, resuming."""

import json
import logging
import math
import random

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, pipeline

from lmft import train as command
from lmft.assembly import assemble
from lmft.commands.evaluate import measure as evaluate
from lmft.commands.predict import answer as predict
from lmft.config.load import compose
from lmft.errors import UserError
from lmft.runs.trained import recorded_config
from tests.helpers.causal import (
    SCRATCH,
    chat_arguments,
    conversations,
    logging_left_alone,
    saved,
    text_arguments,
    train,
    write_rows,
)
from tests.helpers.closeness import SIX_DIGITS, assert_close, assert_same_scores, size_of
from tests.helpers.gradients import gradients_of_steps
from tests.helpers.models import tiny_model
from tests.helpers.resuming import assert_same, cut
from tests.helpers.runs import numbers, rows

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Texts, conversations, models, cache and runs of the trainings here."""
    return tmp_path_factory.mktemp("causal")


def measured(*arguments):
    """Scores of a model that is not trained first."""
    return evaluate(compose(arguments))["validation"]


def recorded(run, *overrides):
    """The config that `run=` leads to."""
    now = compose([f"run={run.folder}", "trainer=cpu", "trainer.precision=32-true", *overrides], "evaluate")
    return recorded_config(run.folder, now, list(overrides))


def reference(run):
    """Model and tokenizer as anybody would load them."""
    model = AutoModelForCausalLM.from_pretrained(run.paths.model, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(run.paths.model)


def nats_by_labels(model, ids, seen=1) -> tuple[float, int]:
    """What the model's own loss says of a stretch of tokens, of which `seen` count nothing; and of how many."""
    ids = torch.tensor([ids])
    labels = ids.clone()
    labels[:, :seen] = -100
    count = int((labels[:, 1:] != -100).sum())
    with torch.no_grad():
        return (float(model(input_ids=ids, labels=labels).loss) * count if count else 0.0), count


# text


@pytest.fixture(scope="module")
def on_text(folder):
    """A model from scratch, trained on text for two epochs."""
    probes = 'data.probes=["the quick brown fox", "a lazy"]'
    return train(*SCRATCH, *text_arguments(folder), "run.name=text", "trainer.max_epochs=3", probes)


def test_the_loss_falls(on_text):
    run, result = on_text
    assert result["status"] == "complete"
    assert result["after"]["loss"] < 0.8 * result["before"]["loss"]
    assert result["before"]["loss"] == pytest.approx(math.log(320), rel=0.05)
    assert result["after"]["perplexity"] == pytest.approx(math.exp(result["after"]["loss"]))
    assert next(row["step"] for row in rows(run) if row["val/loss"]) == "0"


def test_the_scores_are_those_of_the_models_own_loss(on_text, folder):
    run, result = on_text
    model, tokenizer = reference(run)
    lines = (folder / "held_out.txt").read_text().splitlines()
    stream = [i for line in lines for i in [*tokenizer(line)["input_ids"], tokenizer.eos_token_id]]
    blocks = [stream[i : i + 32] for i in range(0, len(stream), 32)]
    parts = [nats_by_labels(model, block) for block in blocks]
    nats, count = (sum(column) for column in zip(*parts, strict=True))
    after = result["after"]
    assert after["targets"] == count == len(stream) - len(blocks)
    assert_close(after["loss"], nats / count)
    num_bytes = sum(len(line.encode()) for line in lines)
    assert_close(after["bits_per_byte"], nats / count * len(stream) / num_bytes / math.log(2))


def test_metrics_json_counts_every_token(on_text):
    run, result = on_text
    assert json.loads(run.paths.metrics.read_text()) == result
    for split in result["data"].values():
        assert split["tokens"] + split["tokens_repeated"] == split["tokens_in_examples"] + split["tokens_dropped"]
    of_training = result["data"]["train"]
    assert result["train"]["tokens"] == 3 * of_training["tokens_in_examples"]
    assert result["train"]["targets"] == 3 * (of_training["tokens"] - of_training["examples"])
    assert result["data"]["validation"]["unigram_perplexity"] > 1


def test_prompts_are_continued_before_during_and_after(on_text):
    run, _ = on_text
    samples = [json.loads(line) for line in run.paths.samples.read_text().splitlines()]
    assert [each["stage"] for each in samples[::2]] == ["before", *["validation"] * 3, "after"]
    assert {each["prompt"] for each in samples} == {"the quick brown fox", "a lazy"}
    assert all(each["texts"].keys() == {"greedy", "sampled"} for each in samples)
    assert samples[0]["texts"] != samples[-2]["texts"]
    report = run.paths.report.read_text()
    assert "the quick brown fox" in report and "the quick brown fox" in (run.paths.model / "README.md").read_text()


def test_the_folder_generates_as_the_run_did(on_text):
    run, _ = on_text
    generate = pipeline("text-generation", model=str(run.paths.model))
    made = generate("the quick brown fox", max_new_tokens=6, do_sample=False, return_full_text=False)
    last = json.loads(run.paths.samples.read_text().splitlines()[-2])
    assert made[0]["generated_text"] == last["texts"]["greedy"]


@pytest.mark.parametrize("stride", [5, 16])
def test_with_a_stride_every_token_but_the_first_is_scored_once(stride, on_text, folder):
    run, _ = on_text
    options = ("data.examples=lines", "data.block_size=16", f"data.stride={stride}", "data.batch_size=3")
    scores = evaluate(recorded(run, *options))["validation"]
    model, tokenizer = reference(run)
    parts, num_tokens = [], 0
    for line in (folder / "held_out.txt").read_text().splitlines():
        ids = [*tokenizer(line)["input_ids"], tokenizer.eos_token_id]
        num_tokens += len(ids) - 1
        parts.append(nats_by_labels(model, ids[:16]))
        begins = range(stride, len(ids) - 16 + stride, stride)
        parts += (nats_by_labels(model, ids[begin : begin + 16], max(1, 16 - stride)) for begin in begins)
    nats, count = (sum(column) for column in zip(*parts, strict=True))
    if stride < 16:
        assert count == num_tokens, "of windows that touch, the first token has nothing before it"
    assert scores["targets"] == count
    assert_close(scores["loss"], nats / count)


def test_gradient_checkpointing_changes_no_loss(folder):
    options = ("trainer.max_steps=3", "trainer.log_every_n_steps=1", "validate_before=false")
    losses = []
    for checkpointing in ("false", "true"):
        arguments = (f"model.gradient_checkpointing={checkpointing}", f"run.name=checkpointing-{checkpointing}")
        run, _ = train(*SCRATCH, *text_arguments(folder), *options, *arguments)
        losses.append([float(row["train/loss"]) for row in rows(run) if row["train/loss"]])
    assert len(losses[0]) == 3
    assert_close(losses[1], losses[0], 2, SIX_DIGITS)


@pytest.mark.parametrize("examples", ["blocks", pytest.param("lines", marks=SLOW), pytest.param("packs", marks=SLOW)])
def test_a_stored_model_learns_to_fill_in_the_middle(examples, folder):
    model = f"model.name_or_path={saved(folder, 'gpt2')}"
    options = ("objective=fim", "optimizer.lr=1e-2", f"data.examples={examples}", f"run.name=fim-{examples}")
    run, result = train("model=causal", model, *text_arguments(folder), *options)
    assert result["after"]["loss"] < result["before"]["loss"]
    assert result["after"]["bits_per_byte"] is None, "a rearranged text's nats are not the text's"
    trained, tokenizer = reference(run)
    sentinels = tokenizer.convert_tokens_to_ids(["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"])
    assert sentinels == [320, 321, 322] and trained.get_input_embeddings().num_embeddings == 323
    assert tokenizer("<|fim_prefix|>the")["input_ids"][0] == 320
    again = evaluate(recorded(run))["validation"]
    assert_same_scores(again, result["after"])


def test_a_document_of_one_token_is_dropped_and_counted(tmp_path):
    model = saved(tmp_path, "llama", bos_token_id=None)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.eos_token = tokenizer.bos_token = None
    tokenizer.save_pretrained(model)
    arguments = text_arguments(tmp_path)
    (tmp_path / "text.txt").write_text("a\n" + "the quick brown fox\n" * 8)
    options = ("data.examples=lines", "run.name=one", "trainer.max_steps=1", "data.probes=[a]")
    _, result = train("model=causal", f"model.name_or_path={model}", *arguments, *options)
    assert result["data"]["train"]["documents_dropped"] == {"too short": 1}
    assert result["data"]["train"]["examples"] == 8


# chats


def targets_of(tokenizer, chats, roles=("assistant",)) -> int:
    """Tokens of the answers, each with the token that ends its turn."""
    said = [message["content"] for row in chats for message in row["messages"] if message["role"] in roles]
    return sum(len(tokenizer(content + "<|im_end|>")["input_ids"]) for content in said)


@pytest.fixture(scope="module")
def on_chats(folder):
    """A stored model that has learnt a few conversations nearly by heart."""
    probes = 'data.probes=[{chat: "how do you say dog?"}]'
    write_rows(folder / "few.jsonl", conversations(6))
    same = (f"data.train={folder}/few.jsonl", f"data.validation={folder}/few.jsonl")
    options = ("run.name=chats", "trainer.max_epochs=60", "trainer.check_val_every_n_epoch=60")
    batches = ("data.batch_size=1", "data.block_size=300")
    return train(*chat_arguments(folder), *same, *options, *batches, probes)


def test_only_answers_are_learnt(on_chats):
    run, result = on_chats
    _, tokenizer = reference(run)
    expected = targets_of(tokenizer, conversations(6))
    assert result["before"]["targets"] == result["after"]["targets"] == expected
    assert result["train"]["targets"] == 60 * expected
    assert result["train"]["padding"] <= 0.5 * result["train"]["tokens"]
    assert result["after"]["loss"] < 0.1 * result["before"]["loss"]
    assert result["after"]["bits_per_byte"] is None, "of the questions nothing is known"


def test_the_end_of_a_turn_is_learnt(on_chats):
    run, _ = on_chats
    model, tokenizer = reference(run)
    assert tokenizer.eos_token == "<|im_end|>" and model.generation_config.eos_token_id == [0, 321]
    messages = conversations(6)[1]["messages"]
    ids = tokenizer.apply_chat_template(messages, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        predicted = model(input_ids=ids).logits[0].argmax(-1)
    ends = [i for i, token in enumerate(ids[0].tolist()) if token == 321]  # of user and assistant in turn
    assert len(ends) == len(messages)
    assert [int(predicted[end - 1]) for end in ends[1::2]] == [321] * len(ends[1::2])


def test_a_run_answers_as_it_has_learnt(on_chats):
    run, _ = on_chats
    (question, answer, *_) = conversations(6)[1]["messages"]
    found = predict(recorded(run, "model.generation.max_new_tokens=20"), [{"chat": question["content"]}])
    assert found[0]["texts"]["greedy"] == answer["content"]
    forced = predict(recorded(run), [{"chat": question["content"]}], answer["content"])[0]["tokens"]
    assert "".join(token["predicted"] for token in forced).startswith(answer["content"] + "<|im_end|>")


def test_packs_and_lines_say_the_same_of_the_same_conversations(folder):
    arguments = chat_arguments(folder)
    scores = {
        (examples, size): measured(*arguments, f"data.examples={examples}", f"data.batch_size={size}")
        for examples in ("packs", "lines")
        for size in (1, 3, 8)
    }
    expected = scores["packs", 1]
    for found in scores.values():
        assert_same_scores(found, expected)


def test_the_score_is_that_of_labels_that_hide_all_but_the_answers(folder):
    arguments = chat_arguments(folder)
    scores, config = measured(*arguments), compose(arguments)
    parts = assemble(config)
    torch.manual_seed(config["seed"])  # whence the rows of new tokens are
    model, tokenizer = parts.module().model.eval(), parts.tokenizer
    nats, count = 0.0, 0
    for row in conversations(9, seed=2):
        ids, labels = [], []
        for message in row["messages"]:
            is_answer = message["role"] == "assistant"
            header = tokenizer(f"<|im_start|>{message['role']}\n")["input_ids"]
            said, newline = (tokenizer(text)["input_ids"] for text in (message["content"] + "<|im_end|>", "\n"))
            ids += header + said + newline
            labels += [-100] * len(header) + (said if is_answer else [-100] * len(said)) + [-100] * len(newline)
        num = sum(label != -100 for label in labels)
        with torch.no_grad():
            nats += num * float(model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss)
        count += num
    assert scores["targets"] == count
    assert_close(scores["loss"], nats / count)


@pytest.mark.parametrize("examples", ["lines", "packs"])
def test_micro_batches_give_the_gradient_of_the_whole(examples, folder):
    arguments = [*chat_arguments(folder), "data.block_size=300", f"data.examples={examples}", "optimizer=sgd"]
    plain = ("optimizer.lr=0.0", "scheduler=constant_with_warmup", "trainer.max_epochs=1")
    arguments += [*plain, "trainer.gradient_clip_val=null"]
    (whole, _, _), (parts, _, batches) = (
        gradients_of_steps(
            folder, compose([*arguments, f"data.batch_size={size}", f"trainer.accumulate_grad_batches={4 // size}"])
        )
        for size in (4, 1)
    )
    assert len({batch.num_targets for batch in batches}) > 1, "equal shares would hide a mean of means"
    assert len(whole) == len(parts) > 1
    for found, wanted in zip(parts, whole, strict=True):
        assert max(map(size_of, wanted.values())) > 0
        assert_close(found, wanted)


def test_train_on_chooses_the_targets(folder):
    arguments = chat_arguments(folder)
    parts = assemble(compose(arguments))
    chats = conversations(9, seed=2)
    of_all = parts.corpus.ledger["validation"]["tokens"]
    expected = {
        "assistant": targets_of(parts.tokenizer, chats),
        "completion": targets_of(parts.tokenizer, chats),
        "last_turn": targets_of(parts.tokenizer, [{"messages": row["messages"][-1:]} for row in chats]),
        "all": of_all - len(chats),
    }
    found = {name: measured(*arguments, f"data.train_on={name}") for name in expected}
    assert {name: scores["targets"] for name, scores in found.items()} == expected
    assert {name for name, scores in found.items() if scores["bits_per_byte"]} == {"all"}


def test_prompts_and_completions_train_on_the_completion(folder):
    pairs = [{"prompt": "the quick", "completion": " brown fox"}, {"prompt": "a", "completion": " lazy dog\n"}] * 4
    files = (f"data.train={write_rows(folder / 'pairs.jsonl', pairs)}", "data.validation=null")
    options = ("data.validation_fraction=0", "data.chat_template=null", "data.examples=lines", "trainer.max_epochs=1")
    options = (*options, "run.name=pairs")
    run, result = train(*chat_arguments(folder), *files, *options)
    _, tokenizer = reference(run)
    ends = [len(tokenizer(pair["completion"])["input_ids"]) + 1 for pair in pairs]
    assert result["train"]["targets"] == sum(ends)
    assert len(tokenizer) == 320 and tokenizer.chat_template is None


def test_a_model_that_cannot_pack_is_given_lines(folder, caplog):
    falcon = saved(folder, "falcon", hidden_size=32, num_hidden_layers=1, num_attention_heads=2, alibi=True)
    with caplog.at_level("WARNING", "lmft"):
        _, result = train(*chat_arguments(folder, falcon), "run.name=falcon", "trainer.max_epochs=1")
    assert "falcon cannot pack documents (its positions are counted over the whole row); each document" in caplog.text
    assert result["data"]["train"]["examples"] == 24 and result["after"]["loss"] < result["before"]["loss"]
    assert result["before"]["targets"] == measured(*chat_arguments(folder))["targets"]


def test_conversations_without_an_answer_are_dropped_and_counted(folder, caplog):
    chats = conversations(8)
    chats.insert(3, {"messages": [{"role": "user", "content": "nobody answers"}]})
    path = write_rows(folder / "unanswered.jsonl", chats)
    with caplog.at_level("WARNING", "lmft"):
        ledger = assemble(compose([*chat_arguments(folder), f"data.train={path}"])).corpus.ledger["train"]
    assert (ledger["documents"], ledger["documents_dropped"]) == (9, {"without a target": 1})
    assert "1 without a target" in caplog.text and "unanswered.jsonl, row 4" in caplog.text


# adapters and frozen parts


@pytest.fixture(scope="module", params=["merged", "apart"])
def adapted(request, folder):
    """A run that trains adapters, with every checkpoint kept, and the options that led to it."""
    pytest.importorskip("peft")
    options = (*chat_arguments(folder), "model.lora.r=4", f"model.lora.merge={request.param == 'merged'}".lower())
    options = (*options, "checkpoint.every_n_steps=1", "checkpoint.keep_last=-1", "data.batch_size=1")
    run, result = train(*options, f"run.name=lora-{request.param}")
    return run, result, options


def test_a_checkpoint_holds_the_adapters_alone(adapted):
    run, result, _ = adapted
    assert result["after"]["loss"] < result["before"]["loss"]
    state = torch.load(run.paths.checkpoints / "last.ckpt", weights_only=True)["state_dict"]
    assert state and all("lora_" in name or "trainable_tokens" in name for name in state)
    assert any("trainable_tokens" in name for name in state), "the rows of <|im_start|> and <|im_end|>"


def test_adapters_resume_bit_for_bit(adapted):
    run, result, options = adapted
    name = f"{run.name}-resumed"
    cut(run, name, 2)
    resumed, again = train(*options, f"run.name={name}")
    assert f"resuming from {resumed.checkpoint}" in resumed.paths.log.read_text()
    assert numbers(again) == numbers(result)
    for found, wanted in zip(*(sorted(each.paths.model.glob("*.safetensors")) for each in (resumed, run)), strict=True):
        weights, others = load_file(found), load_file(wanted)
        assert weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


def test_an_adapted_model_is_evaluated_and_asked(adapted):
    run, result, _ = adapted
    scores = evaluate(recorded(run))["validation"]
    assert_same_scores(scores, result["after"])
    assert predict(recorded(run), [{"chat": "the fox?"}])[0]["texts"].keys() == {"greedy", "sampled"}


def test_an_adapted_run_leaves_merged_weights_or_adapters(adapted, folder):
    run, _, _ = adapted
    names = {path.name for path in run.paths.model.iterdir()}
    if run.name == "lora-merged":
        model, tokenizer = reference(run)
        assert not any("lora" in name for name in model.state_dict()) and "adapter_config.json" not in names
        base = load_file(saved(folder, "llama") / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
        assert not torch.equal(model.model.layers[0].mlp.up_proj.weight, base) and len(tokenizer) == 322
    else:
        assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names
        assert "model.safetensors" not in names


@pytest.mark.slow
def test_frozen_embeddings_stay_as_they_are_and_resume(folder):
    model = saved(folder, "gpt2")
    frozen = ("model.freeze=[embeddings]", "checkpoint.every_n_steps=1", "checkpoint.keep_last=-1")
    options = ("model=causal", f"model.name_or_path={model}", *text_arguments(folder), "optimizer.lr=1e-2", *frozen)
    run, result = train(*options, "run.name=frozen")
    before, after = (load_file(path / "model.safetensors") for path in (model, run.paths.model))
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {"transformer.wte.weight", "transformer.wpe.weight"} <= same
    assert not any(name.startswith("transformer.h.") and name.endswith("weight") for name in same)
    state = torch.load(run.paths.checkpoints / "last.ckpt", weights_only=True)["state_dict"]
    assert not any("wte" in name or "wpe" in name for name in state)
    cut(run, "frozen-resumed", 5)
    resumed, again = train(*options, "run.name=frozen-resumed")
    assert_same(resumed, run)
    assert numbers(again) == numbers(result)


@pytest.mark.parametrize(
    ("examples", "accumulate"),
    [
        ("lines", 1),
        pytest.param("packs", 2, marks=SLOW),
        pytest.param("lines", 2, marks=SLOW),
        pytest.param("packs", 1, marks=SLOW),
    ],
)
def test_a_killed_run_on_chats_resumes_bit_for_bit(examples, accumulate, folder):
    options = [*chat_arguments(folder), f"data.examples={examples}", "data.batch_size=2", "data.block_size=200"]
    options += [f"trainer.accumulate_grad_batches={accumulate}", "model.config.attention_dropout=0.1"]
    options += ["checkpoint.every_n_steps=1", "checkpoint.keep_last=-1", 'data.probes=[{chat: "the fox?"}]']
    name = f"killed-{examples}-{accumulate}"
    run, result = train(*options, f"run.name={name}")
    cut(run, f"{name}-resumed", 2)
    resumed, again = train(*options, f"run.name={name}-resumed")
    assert result["steps"] > 4, "two steps are in the middle of the first epoch"
    assert f"resuming from {resumed.checkpoint}" in resumed.paths.log.read_text()
    assert_same(resumed, run)
    assert numbers(again) == numbers(result)


# a masked model made causal


@pytest.fixture(scope="module")
def masked(tmp_path_factory, tokenizer):
    """A folder of a tiny BERT, and arguments that train it as a causal model on words that nothing foretells."""
    folder = tmp_path_factory.mktemp("masked")
    tiny_model("bert", tokenizer).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    words = sorted(token for token in tokenizer.get_vocab() if token.isalpha() and len(token) > 2)
    draw = random.Random(3)
    for name, num_lines in (("text.txt", 40), ("held_out.txt", 15)):
        lines = (" ".join(draw.choices(words, k=31)) for _ in range(num_lines))
        (folder / name).write_text("\n".join(lines) + "\n")
    bert = ["model=causal", f"model.name_or_path={folder / 'bert'}", "model.config.hidden_dropout_prob=0.1"]
    return folder, [*bert, *text_arguments(folder), "optimizer.lr=1e-2", "checkpoint.every_n_steps=1"]


@pytest.fixture(scope="module")
def made_causal(masked):
    """The run of it, what metrics.json holds, and what the terminal says of it."""
    _, arguments = masked
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("lmft").addHandler(handler)
    try:
        run, result = train(*arguments, "checkpoint.keep_last=-1", "trainer.max_epochs=3", "run.name=bert")
    finally:
        logging.getLogger("lmft").removeHandler(handler)
    return run, result, [record.getMessage() for record in records]


def test_a_masked_model_is_made_causal_and_that_is_said(made_causal):
    _, _, said = made_causal
    assert said[0] == "bert attends to both sides; model.config.is_decoder=true makes it causal, here and in model/"


def test_a_masked_model_made_causal_does_not_see_what_it_predicts(made_causal):
    _, result, _ = made_causal
    after, unigram = result["after"]["loss"], math.log(result["data"]["validation"]["unigram_perplexity"])
    assert 0.9 * unigram < after < result["before"]["loss"]


def test_the_folder_of_a_model_made_causal_is_causal_and_gives_its_scores(made_causal, masked):
    run, result, _ = made_causal
    model, tokenizer = reference(run)
    assert model.config.is_decoder and type(model).__name__ == "BertLMHeadModel"
    ids = torch.randint(5, len(tokenizer), (2, 12), generator=torch.Generator().manual_seed(1))
    ids[1, :8] = ids[0, :8]
    with torch.no_grad():
        one, other = model(input_ids=ids).logits
    torch.testing.assert_close(one[:8], other[:8])
    assert not torch.allclose(one[8:], other[8:])
    folder, _ = masked
    lines = (folder / "held_out.txt").read_text().splitlines()
    stream = [i for line in lines for i in tokenizer(line)["input_ids"]]
    parts = [nats_by_labels(model, stream[i : i + 32]) for i in range(0, len(stream), 32)]
    nats, count = (sum(column) for column in zip(*parts, strict=True))
    assert (result["after"]["targets"], result["after"]["loss"]) == (count, pytest.approx(nats / count, rel=1e-5))
    scores = evaluate(recorded(run))["validation"]
    assert scores["loss"] == pytest.approx(result["after"]["loss"], rel=1e-6)
    assert predict(recorded(run), ["the quick"])[0]["texts"].keys() == {"greedy", "sampled"}


def test_a_model_made_causal_resumes_bit_for_bit(made_causal, masked):
    run, result, _ = made_causal
    _, arguments = masked
    cut(run, "bert-resumed", 5)
    resumed, again = train(*arguments, "checkpoint.keep_last=-1", "trainer.max_epochs=3", "run.name=bert-resumed")
    assert_same(resumed, run)
    assert numbers(again) == numbers(result)


def test_the_folder_of_a_model_made_causal_fills_gaps_only_where_the_user_says_so(made_causal, masked):
    run, _, _ = made_causal
    folder, _ = masked
    options = [each for each in text_arguments(folder) if "generation" not in each]
    options += ["model=masked", f"model.name_or_path={run.paths.model}", "run.name=masked", "trainer.max_steps=1"]
    with pytest.raises(UserError, match="does not see the tokens after") as error:
        train(*options)
    assert error.value.fix == "model.config.is_decoder=false"
    assert not (folder / "runs/masked").exists()
    with pytest.raises(UserError, match="does not see the tokens after"):
        predict(compose(options), ["the [MASK] fox"])
    run, _ = train(*options, str(error.value.fix))
    assert not AutoModelForMaskedLM.from_pretrained(run.paths.model).config.is_decoder


# mistakes


FORBIDS = (
    "{% if messages[0].role == 'assistant' %}{{ raise_exception('the user speaks first') }}{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def message(role, content):
    return {"role": role, "content": content}


USER, ANSWER = message("user", "the quick brown fox"), message("assistant", "jumps")
MISTAKES = {
    "neither messages nor prompt": ([{"conversation": [USER]}], (), ("neither 'messages'", "row 2", "data.columns")),
    "an unknown role": ([{"messages": [message("human", "a"), ANSWER]}], (), ("'human'", "'user'", "row 2")),
    "no template": ([{"messages": [USER, ANSWER]}], ("data.chat_template=null",), ("no chat template", "chatml")),
    "an unknown template": ([{"messages": [USER]}], ("data.chat_template=chtml",), ("chtml", "did you mean 'chatml'?")),
    "empty content": ([{"messages": [USER, message("assistant", " ")]}], (), ("message 2", "no content", "row 2")),
    "an empty completion": ([{"prompt": "a", "completion": ""}], (), ("'completion' is empty", "row 2")),
    "an answer first": (
        [{"messages": [ANSWER, USER]}],
        ("data.chat_template=forbids.jinja",),
        ("the user speaks first", "row 2"),
    ),
    "a conversation that is too long": (
        [{"messages": [USER, message("assistant", "jumps " * 200)]}],
        ("data.too_long=refuse",),
        ("longer than data.block_size=160", "chats.jsonl, row 2", "too_long=cut"),
    ),
    "blocks longer than the model": ([{"messages": [USER, ANSWER]}], ("data.block_size=4096",), ("2048 positions",)),
    "prompts that fill the block": (
        [],
        ("data.block_size=4", "data.validation=null", "data.validation_fraction=0"),
        ("no example", "without a target"),
    ),
    "a vocabulary of conversations": (
        [],
        ("model=gpt2_tiny", "objective=causal", "model.name_or_path=null"),
        ("trained on texts, not on conversations",),
    ),
    "a part that is not there": ([], ("model.freeze=[layers.7]",), ("llama has layers.0-1, not layers.7",)),
    "nothing left to train": ([], ("model.freeze=[embeddings, layers, model.norm]",), ("leaves nothing to train",)),
    "an adapter for nothing": ([], ("model.lora.r=4", "model.lora.target_modules=[qproj]"), ("'q_proj'",)),
    "a text's option": ([], ("data.format=text",), ("data.chat_template needs conversations",)),
    "another family's objective": ([], ("objective=mlm",), ("is a causal model", "objective=causal (or fim)")),
    "another family's model": ([], ("model=masked", "objective=causal"), ("generates text",)),
}


def mistake(capsys, tmp_path, *argv):
    """What `lmft.train` says; no run is left."""
    with logging_left_alone(), pytest.raises(SystemExit) as ended:
        command.main([*argv, "run.name=refused"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
    found = said[said.rindex("error: ") :]
    assert len(found.splitlines()) <= 3 and "Traceback" not in said
    return found


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_causal_training_is_refused_in_three_lines(name, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows_besides, options, said = MISTAKES[name]
    (tmp_path / "forbids.jinja").write_text(FORBIDS)
    write_rows(tmp_path / "chats.jsonl", [{"messages": [USER, ANSWER]}, *rows_besides])
    files = ("data.train=chats.jsonl", f"data.cache_dir={tmp_path}/cache", f"run.dir={tmp_path}/runs")
    found = mistake(capsys, tmp_path, *chat_arguments(folder), *files, *options, "data.batch_size=1")
    for words in said:
        assert words in found


def test_adapters_without_peft_name_the_command_that_installs_it(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lmft.config.extras.find_spec", lambda name: None)
    found = mistake(capsys, tmp_path, *chat_arguments(folder), f"run.dir={tmp_path}/runs", "model.lora.r=4")
    assert 'pip install "lightning-lmft[peft]"' in found


def test_nothing_is_left_of_a_corpus_without_answers(folder):
    path = write_rows(folder / "questions.jsonl", [{"messages": [USER]}] * 4)
    with pytest.raises(UserError, match="4 without a target"):
        assemble(compose([*chat_arguments(folder), f"data.train={path}"]))
