"""The command line: parse it, run the task once or as a sweep, report mistakes."""
