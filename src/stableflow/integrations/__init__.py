"""Where users already are: diffusers' pipelines, its modular blocks, and loops of one's own."""
