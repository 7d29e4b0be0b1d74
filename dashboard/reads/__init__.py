"""Reads of the stores, cached as long as the files stay the same."""
