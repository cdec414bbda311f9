"""`python -m lmft.verify`: pass or fail, on the user's own model and data."""

from lmft.commands.verify import main

if __name__ == "__main__":
    main()
