"""What surrounds the training loop: checkpoints, metrics, precision, optimizer."""
