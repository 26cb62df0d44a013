"""What the user sees: terminal output and pictures."""
