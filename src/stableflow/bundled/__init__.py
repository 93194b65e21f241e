"""Weights that ship with the package: a FLUX pipeline folder and the attribute classifier of its world."""
