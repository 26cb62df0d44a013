"""Helpers that tests share. Each module says in its first line what it offers."""
