"""Signals that end a command: before its event loop runs, and while it does."""
