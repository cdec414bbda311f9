"""Lightning callbacks of lmft's own."""
