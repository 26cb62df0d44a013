"""The batching engine: the scheduler, sequences, the device thread and the loaded models."""
