"""Replaces the tags of files of the library: copies them, with the encoded audio unchanged byte for byte."""
