"""The stores below data/<city>/ and models/<city>/, one file a store."""
