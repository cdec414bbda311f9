"""lmft: fine-tune and pretrain Hugging Face language models with PyTorch Lightning, composed by Hydra."""

__version__ = "0.1.0"
