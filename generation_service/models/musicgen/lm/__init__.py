"""MusicGen's language model: one implementation for the CPU, and one with static shapes for CUDA graphs."""
