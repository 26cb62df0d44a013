"""How it sounds: from notes to samples."""
