"""Editing methods: one paper, one file."""
