"""`python -m lmft.predict`: ask a run's model, or any other."""

from lmft.commands.predict import main

if __name__ == "__main__":
    main()
