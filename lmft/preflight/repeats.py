"""Documents that a training text holds several times, and words that are many tokens."""

import re

import numpy as np

from lmft.data.examples.documents import Documents
from lmft.preflight.finding import Finding
from lmft.preflight.sample import Text, spread

_MOST_HASHES = 2_000_000  # documents looked at
_MANY_COPIES = 0.05  # share of the tokens that is warned about
_SHORTEST = 13  # tokens; shorter documents, such as headings, repeat in any text
_SAMPLED = 200  # documents whose words are counted
_SAMPLED_TOKENS = 1000  # of each
_SMALLEST_VOCABULARY = 1000  # smaller ones are of bytes or letters, with many tokens a word by intent
_PIECES = re.compile(r"\w+|[^\w\s]")
_LONGEST_WORDS = 25  # letters on average; with more, as in DNA, words are none
# Thai, Lao, Burmese, Khmer, Japanese and Chinese, which put no spaces between words.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_MANY_PER_WORD = 2.5  # tokens; English has 1.3, and German with an English vocabulary 2
_MANY_PER_LETTER = 1.2  # tokens; a Chinese vocabulary has 0.6 to 1


def many_copies(texts: Documents, split: str) -> Finding | None:
    """Return a finding if copies of other documents have many of the tokens, short ones left out.

    Of more than two million documents it looks at those with some remainder of their hash, so that a
    document is looked at with all its copies.

    Args:
        texts: the documents.
        split: their name.
    """
    hashes, lengths = _looked_at(texts)
    num_tokens = lengths.sum()
    long = lengths >= _SHORTEST
    _, firsts = np.unique(hashes[long], return_index=True)
    num_copies = int(long.sum()) - len(firsts)
    share = (lengths[long].sum() - lengths[long][firsts].sum()) / max(1, num_tokens)
    if share <= _MANY_COPIES:
        return None
    text = (
        f"{split}: {num_copies:,} of {long.sum():,} documents are copies of others, with {share:.0%} "
        f"of the tokens; documents of fewer than {_SHORTEST} tokens are not counted"
    )
    fix = "data.deduplicate=exact removes copies, which a model memorises"
    return Finding("duplicates", text, fix)


def _looked_at(texts: Documents) -> tuple[np.ndarray, np.ndarray]:
    """Return hashes and lengths of the documents that are compared. [n], [n]"""
    every = np.uint64(max(1, -(-len(texts) // _MOST_HASHES)))
    hashes = [np.zeros(0, np.uint64)]
    lengths = [np.zeros(0, np.int64)]
    for first, chosen in texts.selection.stretches(texts.store):
        stop = first + len(chosen)
        of_stretch = texts.store.read("hashes", first, stop)
        chosen &= of_stretch % every == 0
        hashes.append(of_stretch[chosen])
        lengths.append(np.diff(texts.store.read("offsets", first, stop + 1))[chosen])
    return np.concatenate(hashes), np.concatenate(lengths)


def many_tokens_per_word(text: Text, vocab_size: int, split: str) -> Finding | None:
    """Return a finding if words are many tokens: the tokenizer was made for other text.

    Words are counted in a sample of 200 documents; in scripts without spaces, letters.

    Args:
        text: the documents.
        vocab_size: tokens of the tokenizer.
        split: the documents' name.
    """
    if vocab_size < _SMALLEST_VOCABULARY:
        return None
    numbers = spread(len(text.texts), _SAMPLED)
    parts = [text.tokens(int(number), _SAMPLED_TOKENS) for number in numbers]
    num_tokens = sum(map(len, parts))
    pieces = [piece for decoded in text.decoded(parts) for piece in _PIECES.findall(decoded)]
    num_letters = sum(map(len, pieces))
    if not num_letters:
        return None
    unit = "word"
    rate = num_tokens / len(pieces)
    limit = _MANY_PER_WORD
    num_unspaced = sum(len(_UNSPACED.findall(piece)) for piece in pieces)
    if num_unspaced > num_letters / 2 or num_letters > _LONGEST_WORDS * len(pieces):
        unit = "letter"
        rate = num_tokens / num_letters
        limit = _MANY_PER_LETTER
    if rate <= limit:
        return None
    found = f"{split}: {rate:.1f} tokens per {unit} in {len(parts)} sampled documents, as for text in "
    text_found = f"{found}a language that the tokenizer does not know well"
    fix = "another tokenizer or model; from scratch, model.tokenizer.train=true"
    return Finding("tokens_per_word", text_found, fix)
