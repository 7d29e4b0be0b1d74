"""The unattended service: cycles, schedule, status, health, retraining, repair and pruning."""
