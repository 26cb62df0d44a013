"""Reads checkpoint files and the model configurations in them."""
