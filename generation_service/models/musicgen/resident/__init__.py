"""The language model's decode step as one computation on tensors that stay on the device, which CUDA graphs capture."""
