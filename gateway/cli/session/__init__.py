"""What a command runs in: the connection, signals, errors, output files."""
