"""The models: their common interface, their discovery, and the devices they run on."""
