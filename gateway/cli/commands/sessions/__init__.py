"""What the subcommands about DAW sessions do."""
