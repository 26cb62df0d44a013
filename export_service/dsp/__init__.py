"""Signal processing: loudness, true peak, limiter, gain, resampling."""
