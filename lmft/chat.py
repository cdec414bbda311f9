"""`python -m lmft.chat`: talk to a model in the terminal."""

from lmft.commands.chat import main

if __name__ == "__main__":
    main()
