"""What is wrong or unusual, and who is told of it."""
