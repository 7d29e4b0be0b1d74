"""Pipelines: what each command does, from stores to stores."""

import os

# Before torch loads: spinning OpenMP threads slow small operations tenfold on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
