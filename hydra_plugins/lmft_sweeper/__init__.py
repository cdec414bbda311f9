"""lmft's plugin for Hydra: the sweeper of sweep=…."""
