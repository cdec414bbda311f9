"""`python -m lmft.predict`: fills the gaps of a text with a run's trained model, or with any other."""

from collections.abc import Sequence

from lmft.cli import Job, run_command
from lmft.run_folder import config_to_use


def predict(job: Job) -> None:
    """Answers each text, and prints the answers."""
    config = config_to_use(job.config, job.overrides)
    texts = [config["text"]] if isinstance(config["text"], str) else config["text"]

    from lmft.fit import predict as answer

    answer(config, texts)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    run_command("predict", predict, argv)


if __name__ == "__main__":
    main()
