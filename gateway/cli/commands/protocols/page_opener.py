"""Opens a page in the user's browser, where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import webbrowser

WAIT_SECONDS = 3.0
"""How long the opener may take to fail."""
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


def open_page(url: str) -> bool:
    """Opens the page with the browser of the desktop; returns whether there is one.

    In a terminal alone, `webbrowser` would start a browser in the terminal that this command has.
    """
    if sys.platform in ("darwin", "win32"):
        return webbrowser.open(url)
    opener = shutil.which("xdg-open")
    if opener is None or not any(os.environ.get(name) for name in DISPLAYS):
        return False
    process = subprocess.Popen(
        [opener, url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for this command, not for the browser.
    )
    try:
        return process.wait(WAIT_SECONDS) == 0
    except subprocess.TimeoutExpired:
        return True  # It has found a browser, and stays as long as that.
