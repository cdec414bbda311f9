"""Parts around the training loop: checkpoints, metrics, precision, optimizer."""
