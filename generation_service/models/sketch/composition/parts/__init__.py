"""What each part plays in a bar."""
