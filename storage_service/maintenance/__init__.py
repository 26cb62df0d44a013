"""Backup and restore, integrity checks, and vacuum."""
