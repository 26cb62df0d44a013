"""Backup and restore, integrity checks, vacuum."""
