"""The pages over a city's flows, forecasts, models, records and alerts; they read the stores and write nothing."""
