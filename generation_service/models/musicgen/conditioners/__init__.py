"""What the language model is conditioned on."""
