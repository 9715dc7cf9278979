"""Webhooks are told: what waits is taken from the feed, signed, sent, and tried again."""
