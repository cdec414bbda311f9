"""Templates are compiled once in a process, and filled with the values of each call."""

from jinja2 import Environment

from lmft.reporting.templates import fill


def test_a_template_is_compiled_once_and_filled_each_time(monkeypatch):
    compiled = []
    compile_source = Environment.compile

    def counting(environment, source, name=None, *args, **kwargs):
        compiled.append(name)
        return compile_source(environment, source, name, *args, **kwargs)

    monkeypatch.setattr("lmft.reporting.templates._COMPILED.code", {})
    monkeypatch.setattr(Environment, "compile", counting)
    roles = [("target", meaning) for meaning in ("first & best", "second")]
    texts = [fill("examples.html.jinja", {}, examples=[], roles=[role]) for role in roles]
    assert compiled and len(compiled) == len(set(compiled))
    assert texts[0] != texts[1] and "first &amp; best" in texts[0]
