"""What `dgx-music db …` does."""
