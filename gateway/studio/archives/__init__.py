"""What a take becomes in a DAW: its notes, its stems and a session."""
