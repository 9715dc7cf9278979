"""The explorer at `/docs`: Swagger UI on the service's own document, with a panel that signs MOR's calls."""
