"""`python -m pipelines COMMAND` does the same as `trafficcast COMMAND`; torchrun and other programs start it."""

from pipelines.cli.main import main

main()
