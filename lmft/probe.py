"""`python -m lmft.probe`: what a linear classifier reads from a model's hidden states."""

from lmft.commands.probe import main

if __name__ == "__main__":
    main()
