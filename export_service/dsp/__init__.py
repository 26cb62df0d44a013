"""Signal processing: loudness, true peak, limiting, normalization, resampling."""
