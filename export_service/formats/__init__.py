"""Reading and writing audio files: codecs, containers, provenance."""
