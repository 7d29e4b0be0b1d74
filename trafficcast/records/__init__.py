"""GPS points and trips: finding, reading and screening them."""
