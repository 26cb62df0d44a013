"""`dgx-music files` from end to end."""

from __future__ import annotations

import json
import re
from pathlib import Path

from export_service.decoding.source_file import SOURCE_FILE_REQUIREMENT
from tests.support.command_line import Shell
from tests.support.foreign_files import encode_tones


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
    assert shell.generations("history") == []


def test_files_are_imported_and_described(shell: Shell, tmp_path: Path) -> None:
    surround, song, picture = tmp_path / "surround.wav", tmp_path / "song.mp3", tmp_path / "picture.png"
    surround.write_bytes(encode_tones(output="a.wav", layout="5.1", seconds=1.0))
    song.write_bytes(encode_tones(output="a.mp3"))
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    done = shell.run("files", "import", str(surround), str(song))
    fields = re.findall(r"^(\w+(?: \w+)?) {2,}(.+?) *$", done.stdout, re.MULTILINE)
    assert [name for name, _ in fields] == ["clip", "file", "audio", "from", "loudness", "true peak"] * 2
    assert fields[2:4] == [
        ("audio", "1 s, 44.1 kHz stereo"),
        ("from", "WAV, 16-bit PCM, 6 channels mixed down to stereo"),
    ]
    assert fields[7:10] == [("file", str(song)), ("audio", "0.5 s, 44.1 kHz stereo"), ("from", "MP3")]
    [clip] = [json.loads(line) for line in shell.run("files", "import", str(song), "--json").stdout.splitlines()]
    assert (clip["source_format"], clip["frames"]) == ("MP3", "22050")
    listed = shell.run("files", "list", "--kind", "clip", "--json").stdout.splitlines()
    assert {json.loads(line)["generation_id"] for line in listed} == {fields[0][1], fields[6][1], clip["clip_id"]}

    line = shell.error("files", "import", str(picture), status=2)
    assert line == f"error: FILE: {picture} {SOURCE_FILE_REQUIREMENT}; it is a PNG picture"
    assert "does not exist" in shell.error("files", "import", str(tmp_path / "none"), status=2)
