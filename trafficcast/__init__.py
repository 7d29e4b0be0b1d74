"""Traffic-flow forecasting: from taxi GPS records to forecasts of inflow and outflow on a city grid."""

__version__ = "0.1.0"
