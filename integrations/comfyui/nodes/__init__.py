"""One file a kind of node."""
