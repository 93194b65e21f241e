"""Experiments whose right answers are known."""
