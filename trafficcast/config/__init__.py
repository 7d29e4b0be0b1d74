"""The configuration file, one file a table."""
