"""What the music is: tempo and key."""
