"""Encodes what the language model is conditioned on."""
