"""What `lmft.chat` answers to the lines of a pipe, and to what is typed."""

import copy
import io
import os
import signal

import pytest

from lmft import api
from lmft.commands.chat import checked_config, open_dialogue
from lmft.config.load import compose
from lmft.modules.dialogue import Dialogue
from tests.helpers.causal import chat_arguments, saved, train
from tests.helpers.models import tiny_model
from tests.helpers.processes import Terminal


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chat")


@pytest.fixture(scope="module")
def run(folder):
    """A finished run on conversations in ChatML, of a model of 160 positions."""
    model = saved(folder, "llama", max_position_embeddings=160)
    done, _ = train(*chat_arguments(folder, model), "run.name=chats")
    return done.folder


@pytest.fixture
def terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Terminal(tmp_path, capsys)


class Keyboard(io.StringIO):
    """What is typed at a terminal."""

    def isatty(self):
        return True


def greedy(run, messages, num_tokens):
    """The answer that transformers' own generate gives."""
    (found,) = api.predict([f"run={run}", f"model.generation.max_new_tokens={num_tokens}"], {"chat": messages})
    return found["texts"]["greedy"]


def said_to(monkeypatch, terminal, text, *arguments):
    """Exit code, answers and what is said besides, of a chat with these lines."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    return terminal.run("chat", *arguments, "max_new_tokens=5", "temperature=0")


def test_each_line_of_a_pipe_is_a_turn(run, terminal, monkeypatch):
    code, out, _ = said_to(monkeypatch, terminal, "the fox?\n\na dog?\n", f"run={run}")
    assert code == 0
    first, second = out.removesuffix("\n").split("\n")
    messages = [{"role": "user", "content": "the fox?"}]
    assert first == greedy(run, messages, 5) and first
    messages += [{"role": "assistant", "content": first.strip()}, {"role": "user", "content": "a dog?"}]
    assert second == greedy(run, messages, 5)


def test_commands_change_what_the_model_reads(run, terminal, monkeypatch):
    lines = "the fox?\n/reset\na dog?\n/undo\na dog?\n/system the garden\na dog?\n/quit\nnever read\n"
    code, out, err = said_to(monkeypatch, terminal, lines, f"run={run}")
    answers = out.removesuffix("\n").split("\n")
    alone = greedy(run, "a dog?", 5)
    system = [{"role": "system", "content": "the garden"}, {"role": "user", "content": "a dog?"}]
    assert code == 0 and answers == [greedy(run, "the fox?", 5), alone, alone, greedy(run, system, 5)]
    assert "taken back: a dog?" in err and "with a system message" in err


def test_lines_that_begin_with_a_slash(run, terminal, monkeypatch):
    code, out, err = said_to(monkeypatch, terminal, "/help\n/wrong\n/undo\n//a dog?\n", f"run={run}")
    assert code == 0 and out == greedy(run, "/a dog?", 5) + "\n"
    assert "/reset" in err and "unknown command /wrong" in err and "nothing to take back" in err


def test_a_system_message_from_the_beginning(run, terminal, monkeypatch):
    _, out, _ = said_to(monkeypatch, terminal, "a dog?\n", f"run={run}", "system=the garden")
    messages = [{"role": "system", "content": "the garden"}, {"role": "user", "content": "a dog?"}]
    assert out == greedy(run, messages, 5) + "\n"


def test_the_seed_decides_sampled_answers(run, terminal, monkeypatch):
    outs = []
    for seed in (1, 1, 2):
        monkeypatch.setattr("sys.stdin", io.StringIO("the fox?\na dog?\n"))
        given = ("max_new_tokens=8", "temperature=5.0", "top_k=100", "top_p=1.0", "repetition_penalty=1.1")
        outs.append(terminal.succeeds("chat", f"run={run}", *given, f"seed={seed}"))
    assert outs[0] == outs[1] != outs[2]


def test_the_oldest_turns_are_left_out_of_a_long_chat(run, terminal, monkeypatch):
    text = "the quick brown fox jumps over a lazy dog\n" * 6
    code, out, err = said_to(monkeypatch, terminal, text, f"run={run}", "system=a dog")
    assert code == 0 and len(out.splitlines()) >= 6
    assert "the oldest 2 messages are left out" in err


def test_a_message_longer_than_the_model_is_refused(run, terminal, monkeypatch):
    text = "the fox " * 200
    code, _, err = said_to(monkeypatch, terminal, text, f"run={run}")
    assert code == 2 and "a shorter message" in err and "Traceback" not in err
    monkeypatch.setattr("sys.stdin", Keyboard())
    lines = iter([text, "a dog?"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines, None) or raised(EOFError))
    code, out, err = terminal.run("chat", f"run={run}", "max_new_tokens=5", "temperature=0")
    assert code == 0 and "a shorter message" in err
    assert out.strip() == greedy(run, "a dog?", 5).strip()  # the one refused is not in the chat


def raised(error):
    raise error


def test_interrupts_stop_a_line_or_an_answer_and_not_the_chat(run, terminal, monkeypatch):
    monkeypatch.setattr("sys.stdin", Keyboard())
    typed = iter([KeyboardInterrupt, "the fox?", "a dog?", EOFError])
    prompts = []

    def read(prompt):
        prompts.append(prompt)
        line = next(typed)
        return line if isinstance(line, str) else raised(line)

    monkeypatch.setattr("builtins.input", read)
    generate = api.CausalLanguageModel.generate

    def interrupted_at_first(module, prompts, options):
        if len(calls := interrupted) == 0:
            calls.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        return generate(module, prompts, options)

    interrupted = []
    monkeypatch.setattr(api.CausalLanguageModel, "generate", interrupted_at_first)
    code, out, err = terminal.run("chat", f"run={run}", "max_new_tokens=5", "temperature=0")
    assert code == 0 and prompts == ["> "] * 4
    assert "(stopped)" in err and err.count("(stopped)") == 1
    assert len(out.strip().splitlines()) >= 2


def test_an_answer_that_is_stopped_stays_in_the_chat(causal_tokenizer):
    tokenizer = copy.deepcopy(causal_tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    module = api.CausalLanguageModel(tiny_model("gpt2", tokenizer), tokenizer).eval()
    dialogue = Dialogue(module, {"max_new_tokens": 50, "do_sample": False, "min_new_tokens": 50})
    parts = []
    answer = dialogue.answer("the fox", parts.append, lambda: len(parts) >= 1)
    assert answer == "".join(parts).strip() and len(dialogue.turns) == 2
    assert len(tokenizer(answer).input_ids) < 50 and dialogue.cut_by is None
    assert dialogue.undo() == "the fox" and dialogue.turns == []


def test_variables_of_the_template_are_those_given(run):
    given = [f"run={run}", "chat_template_kwargs={enable_thinking: false}"]
    dialogue = open_dialogue(checked_config(compose(given, "chat"), given))
    dialogue.module.tokenizer.chat_template = "{{ enable_thinking }} {{ messages[0].content }}"
    ids, _ = dialogue._prompt([{"role": "user", "content": "a dog"}])
    assert dialogue.module.tokenizer.decode(ids) == "False a dog"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no model is named"),
        (("model.name_or_path={gpt2}",), "no chat template"),
        (("model.name_or_path={bert}",), "a chat needs a causal model"),
        (("run={run}", "temperature=-1"), "temperature=-1 is not 0 or more"),
        (("run={run}", "top_p=1.5"), "top_p=1.5 is not a share"),
        (("run={run}", "top_k=0"), "top_k=0 is not a number"),
        (("run={run}", "repetition_penalty=0"), "repetition_penalty=0 is not above 0"),
        (("run={run}", "max_new_tokens=0"), "max_new_tokens=0 is not a number"),
        (("run={run}", "model.generation.temperature=0.5"), "temperature=…"),
        (("run={run}", "chat_template_kwargs=a"), "names and values"),
        (("run={run}", "device=cuda:77"), "no device"),
        (("run={run}", "tempature=1"), "temperature"),
    ],
)
def test_what_cannot_chat_is_refused(arguments, said, folder, run, tokenizer, terminal, monkeypatch):
    bert = folder / "bert"
    if not bert.exists():
        tiny_model("bert", tokenizer).save_pretrained(bert)
        tokenizer.save_pretrained(bert)
    monkeypatch.setattr("sys.stdin", io.StringIO("a dog?\n"))
    names = {"run": run, "bert": bert, "gpt2": saved(folder, "gpt2")}
    assert said in terminal.refuses("chat", *(argument.format(**names) for argument in arguments))


def test_a_line_that_is_no_text_is_refused(run, terminal, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), "utf-8"))
    assert "not UTF-8 text" in terminal.refuses("chat", f"run={run}")
