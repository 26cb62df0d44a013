"""Audio files from outside: what they are, whether they are complete, and their samples."""
