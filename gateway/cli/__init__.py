"""The command-line interface `dgx-music`."""
