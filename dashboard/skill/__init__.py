"""The pages Skill and Models."""
