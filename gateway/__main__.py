"""Lets `python -m gateway` be the command `dgx-music`."""

from gateway.cli.main import main

if __name__ == "__main__":
    main()
