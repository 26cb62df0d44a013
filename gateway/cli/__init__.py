"""The command line `dgx-music`."""
