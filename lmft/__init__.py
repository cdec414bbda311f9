"""lmft: fine-tune and pretrain Hugging Face language models with PyTorch Lightning and Hydra."""

import os

# Read by torch and tokenizers on import. Threads that sleep while they wait are as fast on an idle
# machine; threads that spin make training many times slower if another process needs the cores too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

__version__ = "0.1.0"
