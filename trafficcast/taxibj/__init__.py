"""The TaxiBJ data set."""
