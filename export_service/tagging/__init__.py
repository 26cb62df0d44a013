"""The content of file tags, and how each container stores them."""
