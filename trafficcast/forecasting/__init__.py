"""Windows, climatology, baselines, models, prediction intervals; making and scoring forecasts."""
