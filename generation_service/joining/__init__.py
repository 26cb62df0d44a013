"""Joins audio: crossfades, edits of earlier music, and loops."""
