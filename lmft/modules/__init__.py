"""The LightningModules, one file per family."""
