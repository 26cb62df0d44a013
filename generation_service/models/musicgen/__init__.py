"""MusicGen in a decode loop of its own, from the checkpoints that audiocraft writes."""
