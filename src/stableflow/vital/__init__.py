"""Which layers of a checkpoint are vital."""
