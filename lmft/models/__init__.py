"""Hugging Face models behind one LightningModule: body, targets only, loss."""
