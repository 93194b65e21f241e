"""Many orders from a table: one row an order, each made once, whole or not at all."""
