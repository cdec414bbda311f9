"""Where documents come from, if that cannot be read again."""

from lmft.config.schema import build
from lmft.data.config import DataConfig
from lmft.inspection import add_rows
from lmft.objectives.causal import NextToken


def test_the_rows_of_streamed_text_are_said_to_be_unknown_without_the_network():
    config = build(DataConfig, {"path": "someone/texts", "streaming": True, "max_documents": 9}, "data")
    examples = [{"documents": [{"number": 3, "start": 0, "stop": 2}], "text": [], "streams": []}]
    add_rows(examples, config, "train", None, NextToken())
    assert examples[0]["documents"][0]["place"] == "someone/texts, document 4 (streamed: its row is not known)"
