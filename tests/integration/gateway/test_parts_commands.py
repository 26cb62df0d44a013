"""`dgx-music midi` and `dgx-music stems`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import mido
import pytest

from tests.support.command_line import InProcessShell


def test_notes_and_stems_are_saved_and_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shell = InProcessShell(tmp_path / "data", capfd)
    with shell.serving_in_process():
        made = shell.run("generate", "house at 124 BPM", "--bars", "1", "--model", "sketch", "--json")
        generation = json.loads(made.stdout.splitlines()[-1])
        generation_id = generation["id"]

        done = shell.run("midi", generation_id)
        path = Path(done.stdout.strip())
        assert path == tmp_path / f"{generation_id}.mid"
        file = mido.MidiFile(file=io.BytesIO(path.read_bytes()))
        assert file.length == pytest.approx(4 * 60 / 124, abs=0.002)
        again = shell.run("midi", generation_id, "-o", str(path), status=2)
        assert "use --force to overwrite it" in again.stderr

        done = shell.run("stems", generation_id, "--to", "a/b", "--json")
        stems = [json.loads(line) for line in done.stdout.splitlines()]
        assert [Path(stem["path"]) for stem in stems] == [tmp_path / "a/b" / f"{stem['stem']}.wav" for stem in stems]
        assert {stem["origin"] for stem in stems} == {"COMPOSED"}
        assert all(Path(stem["path"]).is_file() for stem in stems)
        refused = shell.run("stems", generation_id, "--to", "a/b", status=2)
        assert "already exists; use --force" in refused.stderr
        shell.run("stems", generation_id, "--to", "a/b", "--force")
