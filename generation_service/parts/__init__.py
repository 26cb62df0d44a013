"""The parts of finished music: its notes as a MIDI file, and its stems."""
