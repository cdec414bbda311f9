"""Parts of tiny models, made once for all tests of the folder."""

import pytest

from lmft.assembly import assemble
from tests.helpers.runs import tiny


@pytest.fixture(scope="session")
def parts_of(tmp_path_factory):
    """Make the parts of a tiny training, without its weights: `parts_of("gpt2_tiny", "objective=fim")`."""
    folder = tmp_path_factory.mktemp("inspected")
    known = {}

    def make(model, *overrides):
        if (model, *overrides) not in known:
            known[model, *overrides] = assemble(tiny(folder, *overrides, model=model))
        return known[model, *overrides]

    return make
