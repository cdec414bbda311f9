"""Mixed examples: each row is that of its source, whatever else is in the batch."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.data.examples.blocks import Blocks
from lmft.data.examples.documents import Documents
from lmft.data.examples.mixture import MixedExamples
from lmft.data.examples.windows import Lines, Packs
from lmft.objectives.base import ANSWER, SPECIAL
from tests.helpers.stores import PAD, stores

KINDS = {
    "blocks": lambda documents: Blocks(documents, 6, PAD),
    "isolated blocks": lambda documents: Blocks(documents, 6, PAD, isolated=True),
    "lines": lambda documents: Lines(documents, 6, PAD),
    "lines that overlap": lambda documents: Lines(documents, 8, PAD, 1),
    "packs": lambda documents: Packs(documents, 8, PAD),
}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_row_of_a_mixture_is_the_row_of_its_source(data):
    make = KINDS[data.draw(st.sampled_from([*KINDS]))]
    bits = data.draw(st.lists(st.sampled_from([0, int(ANSWER)]), min_size=2, max_size=3))
    sources = {str(i): make(Documents(data.draw(stores(1)), None, bit)) for i, bit in enumerate(bits)}
    sources = {name: examples for name, examples in sources.items() if len(examples)}
    if not sources:
        return
    sizes = [len(examples) for examples in sources.values()]
    mixed = MixedExamples(sources, sizes, PAD)
    assert len(mixed) == sum(sizes)
    numbers = np.array(data.draw(st.lists(st.integers(0, 3 * sum(sizes) - 1), min_size=1, max_size=9)))
    rows = mixed.rows(numbers)
    assert rows.numbers.tolist() == numbers.tolist()
    firsts = np.cumsum([0, *sizes])
    for row, number in enumerate(numbers % sum(sizes)):
        source = int(np.searchsorted(firsts, number, side="right")) - 1
        alone = [*sources.values()][source].rows(np.array([number - firsts[source]]))
        length = int(alone.lengths[0])
        assert rows.lengths[row] == length
        assert rows.tokens[row, :length].tolist() == alone.tokens[0, :length].tolist()
        assert rows.flags[row, :length].tolist() == alone.flags[0, :length].tolist()
        assert (rows.tokens[row, length:] == PAD).all() and (rows.flags[row, length:] == SPECIAL).all()
        if mixed.lengths is not None:
            assert mixed.lengths[number] == length
        if alone.documents is not None:  # numbered by rows for lines, by the text for blocks
            found, expected = rows.documents[row, :length], alone.documents[0, :length]
            assert np.array_equal(found[1:] == found[:-1], expected[1:] == expected[:-1])
            assert (rows.documents[row, length:] == -1).all()
        if alone.num_seen is not None:
            assert rows.num_seen[row] == alone.num_seen[0]
        trainable = np.ones(length, bool) if alone.trainable is None else alone.trainable[0, :length]
        if rows.trainable is None:
            assert trainable.all()
        else:
            assert rows.trainable[row, :length].tolist() == trainable.tolist()
            assert not rows.trainable[row, length:].any()
