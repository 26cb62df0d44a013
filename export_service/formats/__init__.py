"""Reading and writing audio files: codecs, containers, tags, provenance."""
