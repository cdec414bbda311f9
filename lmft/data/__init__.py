"""From text to batches: sources, tokens, store, examples, schedule, noise."""
