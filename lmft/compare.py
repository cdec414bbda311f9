"""`python -m lmft.compare`: runs, ranked."""

from lmft.commands.compare import main

if __name__ == "__main__":
    main()
