"""Writes, signs and reads back the files of the library, in every format."""
