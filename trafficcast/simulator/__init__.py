"""Simulated taxis whose true flows are known."""
