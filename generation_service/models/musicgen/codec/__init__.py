"""EnCodec: encodes samples to codes, and decodes codes to samples chunk by chunk."""
