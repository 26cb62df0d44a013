"""Runs all services in one process on one data directory."""
