"""The models: their common interface, where they are found, and what they run on."""
