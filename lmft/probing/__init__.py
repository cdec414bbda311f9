"""Linear probes: what of a labelled column a linear classifier reads from frozen hidden states."""
