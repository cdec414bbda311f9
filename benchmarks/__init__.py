"""lmft measured beside other programs that do the same job: `python -m benchmarks --help`."""
