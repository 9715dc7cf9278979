"""The commands for tokens, resources and call flows."""
