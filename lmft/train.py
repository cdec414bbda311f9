"""`python -m lmft.train`: train a model and leave a run folder."""

from lmft.commands.train import main

if __name__ == "__main__":
    main()
