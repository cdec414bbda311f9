"""`python -m lmft.evaluate`: measure a run's model, or any other, on validation text."""

from lmft.commands.evaluate import main

if __name__ == "__main__":
    main()
