"""Reports on the records and flows of a city."""
