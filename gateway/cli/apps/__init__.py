"""The groups of subcommands, with their arguments and options; `commands` does what they say."""
