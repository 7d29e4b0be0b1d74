"""The read-only HTTP API over the stores and the registry; FastAPI comes with the extra [api]."""
