"""Synthesis: turns notes into samples."""
