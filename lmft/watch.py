"""`python -m lmft.watch`: the report of a run in the browser, while it trains."""

from lmft.commands.watch import main

if __name__ == "__main__":
    main()
