"""Job: all that another process needs to tokenise shards of a source."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from lmft.data.config import CHAT_FORMATS, DataConfig
from lmft.data.formats.base import Format
from lmft.data.formats.chat.format import ChatFormat
from lmft.data.formats.pairs import PairsFormat
from lmft.data.formats.text import TextFormat
from lmft.data.sources.source import Source
from lmft.objectives.base import Objective

# Unless a number is asked for. Each takes a third of a gigabyte, and two seconds until it begins, while
# the threads of one process's tokenizer use the cores nearly as well.
_MOST_PROCESSES = 8
_BYTES_EACH = 1 << 26  # of the source
FORMATS: dict[str, Callable[[DataConfig, PreTrainedTokenizerFast, Objective], Format]] = {
    "text": TextFormat,
    **dict.fromkeys(CHAT_FORMATS, ChatFormat),
    "pairs": PairsFormat,
}


@dataclass(frozen=True)
class Job:
    """The shards of a source, and how they become tokens."""

    shards: Sequence[Source]
    config: DataConfig
    tokenizer: PreTrainedTokenizerFast
    objective: Objective

    def format(self) -> Format:
        """Return the format of the rows."""
        return FORMATS[self.config.format](self.config, self.tokenizer, self.objective)

    @property
    def num_processes(self) -> int:
        """Return how many processes tokenise, if there are enough shards that have no part yet."""
        asked = self.config.prepare_processes
        if asked is not None:
            return asked
        if self.config.prepare_job is not None:
            return 1  # there is a command for each core
        num_bytes = sum(shard.size or 0 for shard in self.shards)
        return max(1, min(_num_cores(), _MOST_PROCESSES, num_bytes // _BYTES_EACH))


def _num_cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
