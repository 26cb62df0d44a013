"""Engine processes: one per device, under one generation service."""
