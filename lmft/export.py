"""`python -m lmft.export`: write a run's model from any of its checkpoints, convert it, push it."""

from lmft.commands.export import main

if __name__ == "__main__":
    main()
