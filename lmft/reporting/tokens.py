"""One example's tokens as HTML: what is hidden, what stands in its place, what is predicted.

The example is that of `lmft.inspection`. `drawn` prepares it for the macros of tokens.html.jinja.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

from lmft.reporting.roles import CONTEXT, MEANINGS, PADDING
from lmft.reporting.templates import fill

_READERS = {
    ("input_ids",): "what the model reads",
    ("input_ids", "decoder_input_ids"): "what the encoder reads",
}
_PLAIN = {CONTEXT}  # roles without a colour of their own
_MOST_PLACES = 4  # of documents that are named
_SHORT_PADDING = 3  # tokens of padding that are drawn one by one

Token = Mapping[str, Any]


def drawn(example: Mapping[str, Any]) -> dict[str, Any]:
    """Return an example as the macro `example_tokens` takes it: rows of tokens, and their roles."""
    streams = example["streams"]
    names = tuple(stream["name"] for stream in streams)
    rows = []
    if not is_same(example["text"], streams):
        text = [{**token, "source": place} for place, token in enumerate(example["text"])]
        rows.append({"name": "text", "meaning": "before the objective", "tokens": _line(text)})
    for stream in streams:
        meaning = "what the decoder reads; each position predicts the next token"
        if stream["name"] == names[0]:
            meaning = _READERS.get(names, "what the model reads")
        rows.append({"name": stream["name"], "meaning": meaning, "tokens": _line(stream["tokens"])})
    used = {token["role"] for row in rows for token in row["tokens"]}
    return {"rows": rows, "roles": _legend(used), "traced": example["traced"]}


def legend_of(examples: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the roles in drawn examples with their meanings, as the macro `token_legend` takes them."""
    return _legend({role for example in examples for role, _ in example["roles"]})


def _legend(roles: set[str]) -> list[tuple[str, str]]:
    return [(role, meaning) for role, meaning in MEANINGS.items() if role in roles - _PLAIN]


def examples_html(examples: Iterable[Mapping[str, Any]]) -> str:
    """Return examples as HTML with their own style: for notebooks, where no page surrounds them."""
    titled = []
    for example in examples:
        epoch = f", epoch {example['epoch']}" if example["split"].startswith("train") else ""
        title = f"{example['split']} example {example['number']}{epoch}"
        titled.append({"title": title, **drawn(example)})
    return fill("examples.html.jinja", {}, examples=titled, roles=legend_of(titled))


def places_line(example: Mapping[str, Any]) -> str:
    """Return the files and rows that an example's documents come from; empty if they are not known."""
    places = [document["place"] for document in example["documents"] if "place" in document]
    more = f" and {len(places) - _MOST_PLACES} more" if len(places) > _MOST_PLACES else ""
    return "; ".join(places[:_MOST_PLACES]) + more


def is_same(text: Sequence[Token], streams: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the only sequence of the batch is the text itself."""
    sources = [token.get("source") for token in streams[0]["tokens"] if token["role"] != PADDING]
    num_tokens = sum(token["role"] != PADDING for token in text)
    return len(streams) == 1 and sources == list(range(num_tokens))


def _line(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    """Return the tokens of a sequence as they are drawn; long padding is drawn once."""
    line: list[dict[str, Any]] = []
    tokens = with_turns(tokens)
    after = [*tokens[1:], None]
    numbered = enumerate(zip(tokens, after, strict=True))
    for is_padding, run in groupby(numbered, lambda each: each[1][0]["role"] == PADDING):
        members = list(run)
        if is_padding and len(members) > _SHORT_PADDING:
            place, (token, _) = members[0]
            line.append(_drawn(token, None, place) | {"times": len(members)})
        else:
            line += [_drawn(token, following, place) for place, (token, following) in members]
    for token, following in pairwise(line):
        if following["turn"] is not None:
            token["breaks"] = 0  # a turn begins a line anyway
    return line


def with_turns(tokens: Sequence[Token]) -> list[Token]:
    """Return tokens of a chat with the number of their turn, the first of each turn with its speaker."""
    marked = []
    before = None
    turns = 0
    for token in tokens:
        speaker = token.get("speaker")
        begins = speaker is not None and (speaker != before or "seam" in token)
        turns += begins
        more = {"turn": speaker} if begins else {}
        marked.append({**token, **more, "turns": turns})
        before = speaker or before
    return marked


def _drawn(token: Token, following: Token | None, place: int) -> dict[str, Any]:
    """Return one token as it is drawn.

    A target that is also the next token of the sequence is not written below, only told on hovering.
    """
    text = token["text"]
    target = token.get("target")
    is_next = target is not None and following is not None and following["id"] == target["id"]
    return {
        "role": token["role"],
        "is_special": "special" in token,
        "space": space_before(text),
        "label": visible(text),
        "breaks": text.count("\n"),
        "below": None if target is None or is_next else visible(target["text"]),
        "id": token["id"],
        "target": None if target is None else _named(target),
        "more": ", ".join(_more(token)),
        "title": "\n".join(_facts(token, place)),
        "seam": token.get("seam", False),
        "order": token.get("order"),
        "turn": token.get("turn"),
        "source": token.get("source", token.get("stands_for")),
        "sees": " ".join(f"{start}-{stop}" for start, stop in token.get("sees", ())),
        "times": 1,
    }


def space_before(text: str) -> str:
    """Return the space that a token's word begins with; nothing if it has none, or is nothing else."""
    return " " if text.startswith(" ") and text.strip(" ") else ""


def visible(text: str) -> str:
    """Return a token's text without the space before it, with white space written out."""
    stripped = text.removeprefix(" ")
    if not stripped:
        return "␣" if text else "·"
    if not stripped.strip(" "):
        return "␣" * len(stripped)
    return stripped.replace("\n", "↵").replace("\t", "⇥").replace("\r", "␍")


def _named(token: Token) -> str:
    return f"{visible(token['text'])} (id {token['id']})"


def _facts(token: Token, place: int) -> Iterator[str]:
    """Yield lines on a token: its id and place, its role, and what stands or is predicted there."""
    yield f"{visible(token['text'])}: id {token['id']}, position {place}"
    yield token["role"]
    if target := token.get("target"):
        yield f"predicts {_named(target)}"
    yield from _more(token)
    if "speaker" in token:
        yield f"message of {token['speaker']}"
    if "weight" in token:
        yield f"weight {token['weight']} in the loss"


def _more(token: Token) -> Iterator[str]:
    """Yield what else there is to say of a token."""
    if shown := token.get("shown"):
        yield f"the inputs show {_named(shown)}"
    if "order" in token:
        yield f"prediction number {token['order']} of the row"
