"""The batching engine: scheduler, sequences, the device thread, loaded models."""
