"""The Studio: a page to generate, listen and compare, and a thin JSON view of MusicService for it."""
