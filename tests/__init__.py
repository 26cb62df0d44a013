"""Tests, and what tests and benchmarks share."""
