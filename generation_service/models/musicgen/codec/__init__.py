"""EnCodec: codes to samples, piece by piece, and back."""
