"""MusicGen's language model: its weights and linear layers for any device, and its decode step on the CPU."""
