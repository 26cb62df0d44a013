"""What is played: from the prompt's words to notes."""
