"""Rows in, domain objects out. Statements of our own, one for each thing that is asked of the database."""
