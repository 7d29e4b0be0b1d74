"""The suites of `trafficcast benchmark`."""
