"""`dgx-music tls`: certificates for a small network."""
