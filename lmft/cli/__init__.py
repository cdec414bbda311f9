"""The command line: parse, run once or as a sweep, report mistakes."""
