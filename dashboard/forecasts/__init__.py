"""The pages Now and Look back."""
