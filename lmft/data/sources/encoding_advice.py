"""Advice for bytes that are not text in the encoding: what the file is, and which option reads it."""

from lmft.data.sources import opening
from lmft.data.sources.opening import File, Kind
from lmft.errors import UserError

_SAMPLE = 1 << 18  # bytes that are looked at
_FEWEST = 8  # bytes beyond ASCII from which an encoding can be guessed
_MARKS = (  # byte order marks; that of UTF-32 begins with that of UTF-16
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def check_is_text(file: File, head: bytes, encoding: str) -> None:
    """Raise UserError if a file that begins with these bytes is no text.

    Args:
        file: the file.
        head: its first bytes, decompressed.
        encoding: the encoding that it is read with; NULs are usual in UTF-16 and UTF-32.
    """
    if len("a".encode(encoding)) > 1:
        return
    kind = opening.kind_of(head)
    if kind is None or (kind == opening.BINARY and b"\0" not in head):
        return  # stray control characters do not make a text of a known extension something else
    guess = _guess(head) if kind.extension is None and b"\0" in head else None
    if guess and guess.startswith(("utf_16", "utf_32")):
        name = guess.replace("_", "-")
        raise UserError(f"not {encoding} text: it holds NULs", file.label, f"data.encoding={name}")
    fix = advice_for(kind)
    if kind.extension:
        name = file.member or file.path.name
        if kind.extension not in opening.COMPRESSIONS:
            name = name.partition(".")[0]
        fix = f"name it {name}{kind.extension}, as it is read by its extension"
    raise UserError(f"this is not text but a {kind.name}", file.label, fix)


def advice_for(kind: Kind) -> str:
    """Return what to do with a kind of file that is not read."""
    if kind.name == "tar archive":
        return "unpack it into a folder: data.train=FOLDER reads all files in it"
    return "convert it to text first, or name another file"


def advice(file: File, encoding: str) -> str:
    """Return what to try for a file that holds a byte that is not text in the encoding."""
    sample = opening.beginning(file, _SAMPLE)
    for mark, name in _MARKS:
        if sample.startswith(mark) and not encoding.startswith(name[:6]):
            return f"data.encoding={name}"
    rest = "data.encoding_errors=replace"
    if encoding == "utf-8" and _is_mostly_utf8(sample):
        return f"the rest is utf-8: {rest} or ignore"
    others = f"or whichever it was written in; or {rest}"
    guess = _guess(sample)
    if guess is None or guess == encoding:
        return f"data.encoding=latin-1 or cp1252 (Western European), {others}"
    return f"data.encoding={guess} (a guess), {others}"


def _is_mostly_utf8(sample: bytes) -> bool:
    """Return whether more characters beyond ASCII are UTF-8 than are not."""
    text = sample.decode("utf-8", "replace")
    num_bad = text.count("\ufffd")
    num_good = sum(character > "\x7f" for character in text) - num_bad
    return num_good > num_bad


def _guess(sample: bytes) -> str | None:
    """Return the encoding that the bytes look like; None if they tell too little."""
    from charset_normalizer import from_bytes

    if sum(byte > 0x7F or byte == 0 for byte in sample) < _FEWEST:
        return None
    best = from_bytes(sample).best()
    return best.encoding if best else None
