"""Limits what a server takes on at a time, and lets it say so at once."""
