"""Stands in for xformers: the names that audiocraft takes from it, on torch alone.

audiocraft's attention is torch's own unless it is told otherwise, yet it does not import without xformers, which has no
wheel for aarch64 and none that fits every torch. `pip install xformers` puts the real one in this one's place.
"""
