"""Audio types and constants that all services share."""
