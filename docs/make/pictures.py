"""The pictures of the documentation, drawn from real batches of lmft.

python -m docs.make.pictures     writes docs/pictures/*.svg anew
"""

from collections.abc import Callable
from pathlib import Path

from docs.make import examples, objective_pictures, text_pictures

FOLDER = Path(__file__).parents[1] / "pictures"
PICTURES: dict[str, Callable[[], str]] = {
    "masked": objective_pictures.masked,
    "causal": objective_pictures.causal,
    "spans": objective_pictures.spans,
    "infilling": objective_pictures.infilling,
    "permutation": objective_pictures.permutation,
    "sight": objective_pictures.sight,
    "teacher-forcing": objective_pictures.teacher_forcing,
    "answers": objective_pictures.answers,
    "blocks": text_pictures.blocks,
    "isolation": objective_pictures.isolation,
    "order": text_pictures.order,
    "noise": objective_pictures.noise,
    "store": text_pictures.store,
    "perplexity": text_pictures.perplexity,
    "resuming": text_pictures.resuming,
}


def main() -> None:
    """Write all pictures."""
    FOLDER.mkdir(exist_ok=True)
    with examples.own_cache():
        for name, draw in PICTURES.items():
            (FOLDER / f"{name}.svg").write_text(draw(), "utf-8")


if __name__ == "__main__":
    main()
