"""What every face stands on: its shape, what is around each request, and what is refused."""
