"""`python -m lmft.score`: the log-likelihood of each row."""

from lmft.commands.score import main

if __name__ == "__main__":
    main()
