"""The way to PostgreSQL: connections, schema, and one that comes along."""
