"""Reads files that other programs wrote: recognizes them, checks that they are complete, and decodes them."""
