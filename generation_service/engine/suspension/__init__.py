"""What is kept of a request that is stopped before its end."""
