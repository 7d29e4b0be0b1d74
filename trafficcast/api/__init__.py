"""The read-only HTTP API over the stores and the registry. FastAPI is installed by the extra [api]."""
