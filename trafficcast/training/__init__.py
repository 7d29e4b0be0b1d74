"""Training networks and publishing models with their cards."""
