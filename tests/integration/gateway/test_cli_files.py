"""`dgx-music files` from end to end."""

from __future__ import annotations

import json
import re

from tests.support.command_line import Shell


def test_file_is_listed_verified_and_cleaned_up(shell: Shell) -> None:
    [generation] = shell.generations("generate", "techno", "-d", "1", "--seed", "7")
    [listed] = [json.loads(line) for line in shell.run("files", "list", "--json").stdout.splitlines()]
    assert (listed["generation_id"], listed["file_path"]) == (generation.id, generation.file_path)
    assert listed["frames"] == "32000"
    path = shell.data_dir / generation.file_path
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    verified = shell.run("files", "verify", status=1)
    assert verified.stdout == f"changed: generation {generation.id} ({generation.file_path})\n"
    assert "--older-than" in shell.error("files", "cleanup", status=2)
    done = shell.run("files", "cleanup", "--keep", "0GB", "--yes")
    assert re.fullmatch(r"size: output outputs/\S+\.wav, 0\.2 MB\n", done.stdout)
    assert shell.generations("list") == []
