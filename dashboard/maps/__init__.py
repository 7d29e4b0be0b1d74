"""Maps and what is drawn on them."""
