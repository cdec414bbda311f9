"""`python -m lmft.tune`: a learning rate and a micro-batch."""

from lmft.commands.tune import main

if __name__ == "__main__":
    main()
