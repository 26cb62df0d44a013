"""Copies of audio files with other tags, whose encoded audio is the same byte for byte."""
