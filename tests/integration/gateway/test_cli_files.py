"""`dgx-music files` as a person runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.support.command_line import Shell


def test_a_file_is_listed_verified_and_cleaned_up(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    [made] = shell.generations("generate", "techno", "-d", "1", "--seed", "7")
    [listed] = [json.loads(line) for line in shell.run("files", "list", "--json").stdout.splitlines()]
    assert (listed["generation_id"], listed["file_path"], listed["frames"]) == (made.id, made.file_path, "32000")
    path = tmp_path / made.file_path
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert shell.run("files", "verify", status=1).stdout == f"changed: generation {made.id} ({made.file_path})\n"
    assert "--older-than" in shell.error("files", "cleanup", status=2)
    done = shell.run("files", "cleanup", "--keep", "0GB", "--yes")
    assert re.fullmatch(r"size: output outputs/\S+\.wav, 0\.2 MB\n", done.stdout)
    assert shell.generations("list") == []
