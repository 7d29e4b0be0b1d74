"""From records to the record store, to counts and to the flow store."""
