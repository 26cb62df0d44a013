"""Music analysis: tempo and key."""
