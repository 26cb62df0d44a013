"""npm packages for tests, installed once per user and list of packages, outside the repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import platformdirs
import pytest

SECONDS = 120.0
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH")
"""npm's codes for a registry that it cannot reach."""


def installed_packages(package_json: Path) -> Path:
    """Returns the folder node_modules with the packages of a package.json. Skips the test if they can't be installed:
    without Node.js, or without a connection to the registry."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js is not installed")
    content = package_json.read_bytes()
    cache = platformdirs.user_cache_path("dgx-music-tests", appauthor=False)
    installed = cache / f"npm-{hashlib.sha256(content).hexdigest()[:16]}"
    if not installed.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            (Path(folder) / "package.json").write_bytes(content)
            _install(folder)
            with suppress(OSError):  # Another test run was faster.
                os.rename(folder, installed)
                os.mkdir(folder)
    return installed / "node_modules"


def _install(folder: str) -> None:
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode and any(code in done.stderr for code in UNREACHABLE):
        pytest.skip("npm's registry cannot be reached")
    assert done.returncode == 0, done.stderr
