"""Listening to a generation: its samples, the sound card, and standard output as an audio stream."""
