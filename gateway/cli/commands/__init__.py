"""The implementation of each subcommand."""
