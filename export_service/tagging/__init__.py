"""What the tags of a file say, and how each container stores and encodes them."""
