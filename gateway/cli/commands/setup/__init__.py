"""What sets up and checks an installation: the config file, shell completion and `doctor`."""
