"""What the gateway's web servers share: connections and their limits, TLS, hosts, callers and their tokens."""
