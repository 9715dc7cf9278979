"""What can be asked of the service, by audience: callers, switches, operators. No web and no SQL in here."""
