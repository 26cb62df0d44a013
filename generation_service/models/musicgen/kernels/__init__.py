"""The operations of a decode step: plain PyTorch for any device, and Triton kernels for NVIDIA GPUs."""
