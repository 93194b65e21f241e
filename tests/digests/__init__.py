"""Stored latents of every editor and family."""
