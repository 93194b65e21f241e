"""The command line: one file a verb, the same words as the Python names."""
