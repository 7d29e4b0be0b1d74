"""A table of the configuration for a new city, suggested from its records."""
