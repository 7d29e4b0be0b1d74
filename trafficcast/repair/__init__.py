"""Repair of the stores: what is damaged or missing is made again from what is whole, or set aside."""
