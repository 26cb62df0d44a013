"""MusicGen's language model, for the CPU and for CUDA graphs."""
