"""What models say about the notes that they play."""
