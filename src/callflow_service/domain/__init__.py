"""What a call flow is and what may happen to it. Imports nothing but the standard library."""
