"""`python -m lmft.inspect`: examples of a training, token by token."""

from lmft.commands.inspect import main

if __name__ == "__main__":
    main()
