"""A process that ends without an answer, as one does that takes too much memory."""

import os


def main() -> None:
    os._exit(9)
