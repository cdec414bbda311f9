"""lmft: fine-tune and pretrain Hugging Face language models with PyTorch Lightning, composed by Hydra."""

import os

# Read when torch and tokenizers are loaded. Threads that sleep while they wait cost nothing on an idle
# machine; threads that spin make training many times slower where another process wants a core too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

__version__ = "0.1.0"
