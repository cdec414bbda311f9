"""Estimate the speed-up on several GPUs from sizes of models and messages.

`python -m benchmarks.scaling` writes the tables of docs/scaling.md. Nothing here is measured: each
number follows from the formulas of that page and the assumptions below.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
BEGIN = "<!-- tables: written by python -m benchmarks.scaling -->"
END = "<!-- end of tables -->"


@dataclass(frozen=True)
class Model:
    """The shape of a causal model, and the tokens of a micro-batch on each device."""

    name: str
    num_layers: int
    width: int
    inner_width: int
    key_value_share: float  # width of keys and values as a share of `width`
    num_inner: int  # matrices of the inner layer: 2, or 3 with a gate
    vocab_size: int
    is_tied: bool
    block_size: int
    num_rows: int
    is_checkpointed: bool  # whether activations are computed twice

    @property
    def layer(self) -> int:
        """Weights of a layer; vectors are left out."""
        attention = (2 + 2 * self.key_value_share) * self.width**2
        return round(attention + self.num_inner * self.width * self.inner_width)

    @property
    def outside(self) -> int:
        """Weights outside the layers: embeddings, and a head of its own."""
        return self.vocab_size * self.width * (1 if self.is_tied else 2)

    @property
    def weights(self) -> int:
        """All weights."""
        return self.num_layers * self.layer + self.outside

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch on each device."""
        return self.block_size * self.num_rows

    @property
    def operations(self) -> float:
        """Of forward and backward pass of a micro-batch."""
        head = self.vocab_size * self.width
        products = 2 * (self.num_layers * self.layer + head)
        attention = 2 * self.num_layers * self.width * self.block_size  # causal: half of all pairs
        passes = 4 if self.is_checkpointed else 3
        return passes * self.tokens * (products + attention)


@dataclass(frozen=True)
class Cluster:
    """Machines of GPUs, and what is assumed of them."""

    num_devices: int
    cards: int = 8  # network cards of a machine, 400 Gbit/s each
    per_machine: int = 8
    operations: float = 0.4 * 989e12  # a second: 40% of an H100's peak in bfloat16
    inside: float = 300e9  # bytes a second and direction between GPUs of a machine, of 450e9
    card: float = 40e9  # bytes a second through a network card, of 50e9
    hop: float = 5e-6  # seconds until the next device of a ring has a message

    @property
    def bandwidth(self) -> float:
        """Bytes a second that each device of a ring sends.

        A ring through machines uses all their cards.
        """
        if self.num_devices <= self.per_machine:
            return self.inside
        return min(self.inside, self.cards * self.card)

    def seconds(self, num_bytes: float, num_collectives: int) -> float:
        """Of collectives that gather, or sum and share out, so many bytes together."""
        others = self.num_devices - 1
        sending = others / self.num_devices * num_bytes / self.bandwidth
        return sending + num_collectives * others * self.hop


@dataclass(frozen=True)
class Way:
    """How weights are on the devices."""

    name: str
    is_sharded: bool
    gathered_bytes: int = 4  # of each weight

    def memory(self, model: Model, num_devices: int) -> float:
        """Bytes on a device without activations: weights, gradients and AdamW's moments in float32."""
        if not self.is_sharded:
            return 16 * model.weights
        in_use = self.gathered_bytes * (2 * model.layer + model.outside)  # a layer, and the next one
        gradients = 4 * (2 * model.layer + model.outside)  # before they are summed
        return 16 * model.weights / num_devices + in_use + gradients

    def messages(self, model: Model) -> tuple[float, int]:
        """Bytes of a step of one micro-batch, and the number of collectives.

        An all-reduce counts twice: it sums and shares out, then gathers.
        """
        if not self.is_sharded:
            return 2 * 4 * model.weights, 2 * max(1, round(4 * model.weights / 25e6))  # buckets of 25 MB
        twice = self.gathered_bytes * (2 * model.num_layers * model.layer + model.outside)
        return twice + 4 * model.weights, 3 * model.num_layers + 2


MODELS = (
    Model("GPT-2, 0.12B", 12, 768, 3072, 1.0, 2, 50257, True, 1024, 8, is_checkpointed=False),
    Model("SmolLM2, 1.7B", 24, 2048, 8192, 1.0, 3, 49152, True, 2048, 4, is_checkpointed=True),
    Model("Llama 3, 8B", 32, 4096, 14336, 0.25, 3, 128256, False, 4096, 2, is_checkpointed=True),
)
WAYS = (
    Way("ddp", is_sharded=False),
    Way("fsdp2", is_sharded=True),
    Way("fsdp2, gather_in_bf16", is_sharded=True, gathered_bytes=2),
)
CLUSTERS = (
    ("8 GPUs of one machine", Cluster(8)),
    ("64 GPUs of 8 machines, 8 network cards each", Cluster(64)),
    ("64 GPUs of 8 machines, 1 network card each", Cluster(64, cards=1)),
)
_FITS = 70e9  # bytes of an H100 beside what CUDA and NCCL take


def tables() -> str:
    """Return a table for each cluster, as Markdown."""
    return "\n\n".join(f"### {name}\n\n" + "\n".join(_rows(cluster)) for name, cluster in CLUSTERS)


def _rows(cluster: Cluster) -> Iterator[str]:
    columns = "GB a device, without activations | computing | GB of messages | sending | speed-up"
    yield f"| model | `trainer` | {columns} |"
    yield "|---|---|---|---|---|---|---|"
    for model in MODELS:
        for way in WAYS:
            yield _row(model, way, cluster)


def _row(model: Model, way: Way, cluster: Cluster) -> str:
    memory = way.memory(model, cluster.num_devices)
    begin = f"| {model.name} | {way.name} | {memory / 1e9:.1f} |"
    if memory > _FITS:
        return f"{begin} does not fit | | | |"
    num_bytes, num_collectives = way.messages(model)
    computing = model.operations / cluster.operations
    sending = cluster.seconds(num_bytes, num_collectives)
    one_device = cluster.num_devices * computing
    least = one_device / (computing + sending)
    most = one_device / max(computing, sending)
    return (
        f"{begin} {computing * 1e3:.0f} ms | {num_bytes / 1e9:.1f} | {sending * 1e3:.0f} ms | "
        f"{least:.0f} to {most:.0f} times |"
    )


def main() -> None:
    """Write the tables into the page."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
