"""lmft: fine-tune and pretrain Hugging Face language models with PyTorch Lightning and Hydra."""

import logging
import os

# Read by torch and tokenizers on import. Threads that sleep while they wait are as fast on an idle
# machine; threads that spin make training many times slower if another process needs the cores too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
# transformers imports it through peft. On some processors it then warns that a kernel for 4-bit weights
# is missing; lmft has no such weights.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__version__ = "0.1.0"
