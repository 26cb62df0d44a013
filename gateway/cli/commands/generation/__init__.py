"""The commands that make music, and those that play it."""
