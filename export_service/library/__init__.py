"""The files on disk: where they are, what there is, cleanup and verification."""
