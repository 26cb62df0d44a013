"""Search for text in prompts, by an index of their trigrams."""
