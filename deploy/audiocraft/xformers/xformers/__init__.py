"""A substitute for xformers that needs only torch, with the names that audiocraft imports.

audiocraft uses torch's attention by default, but can't be imported without xformers, which has no wheel for aarch64 and
not for every version of torch. `pip install xformers` replaces this package by the real one.
"""
