"""`python -m lmft.prepare`: tokenise a data set ahead of training."""

from lmft.commands.prepare import main

if __name__ == "__main__":
    main()
