"""Measures of an edit, one a file; each owns its resizing and normalisation."""
