"""What all services have to agree on about audio."""
