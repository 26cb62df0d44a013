"""What every command shares: its connection, signals, errors, paging and output files."""
