"""The subcommands about DAW sessions."""
