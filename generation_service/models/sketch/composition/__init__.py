"""Composition: turns the words of a prompt into notes."""
