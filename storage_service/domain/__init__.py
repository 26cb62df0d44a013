"""Generations and prompts: their lifecycle, leases, the queue, lists and statistics."""
