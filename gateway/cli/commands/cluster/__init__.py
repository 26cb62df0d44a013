"""The commands that run the services on a cluster."""
