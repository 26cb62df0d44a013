"""`dgx-music studio` as a process: it serves the page with the services of its own, and ends when it is told to."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2

from tests.support.command_line import Shell, read_until


def test_command_serves_the_page_and_ends_cleanly(tmp_path: Path) -> None:
    with Shell(tmp_path).running("studio", "--no-open", "--listen", "127.0.0.1:0") as process:
        [url] = re.findall(
            r"the Studio is at (http://127\.0\.0\.1:\d+); Ctrl-C", read_until("the Studio is at", process)
        )
        assert "<title>DGX Music Studio</title>" in httpx2.get(url).text
        models = httpx2.post(f"{url}/api/ListModels", json={}).json()["models"]
        assert "sketch" in {model["name"] for model in models}
        process.terminate()
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "")
        assert err.splitlines()[-1] == "stopping; takes that are being generated go on at the next start"
