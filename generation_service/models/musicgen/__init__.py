"""MusicGen with its own decode loop, from checkpoints in audiocraft's format."""
