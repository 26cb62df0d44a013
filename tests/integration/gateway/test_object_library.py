"""The command line, with the library in a bucket of a real S3 server."""

import hashlib
import json
import shutil
import urllib.request

import pytest

from tests.support.command_line import InProcessShell
from tests.support.s3_server import ADMINISTRATOR, READER

pytestmark = pytest.mark.slow


@pytest.fixture
def shell(tmp_path, capfd):
    return InProcessShell(tmp_path, capfd)


def test_every_command_finds_the_files(shell, s3, bucket, tmp_path):
    settings = s3.settings(bucket, prefix="music")
    store = s3.store(bucket, prefix="music")
    [made] = shell.generations("generate", "techno", "--duration", "0.5", "--model", "sketch", **settings)
    assert made.file_path == f"outputs/{made.id}/1.wav"
    saved = tmp_path / "saved.wav"
    shell.run("download", made.id, "--output", str(saved), **settings)
    sha256 = made.metadata["file_sha256"]
    assert hashlib.sha256(saved.read_bytes()).hexdigest() == sha256
    with urllib.request.urlopen(shell.run("files", "url", made.id, **settings).stdout.strip()) as answer:
        assert hashlib.sha256(answer.read()).hexdigest() == sha256
    listed = [json.loads(line) for line in shell.run("files", "list", "--json", **settings).stdout.splitlines()]
    assert [one["file_path"] for one in listed] == [made.file_path]
    shell.run("files", "verify", **settings)
    findings = {one["name"]: one for one in json.loads(shell.run("doctor", "--json", **settings).stdout)["findings"]}
    assert findings["object storage"]["state"] == "ok"
    assert not (tmp_path / "outputs").exists()
    clip = json.loads(shell.run("files", "import", str(saved), "--json", **settings).stdout)["clip_id"]
    url = shell.run("files", "url", clip, "--expires", "30m", **settings).stdout.strip()
    with urllib.request.urlopen(url) as answer:
        assert answer.read(4) == b"RIFF"
    assert "X-Amz-Expires=1800" in url
    assert "at most 7d" in shell.run("files", "url", clip, "--expires", "8d", status=2, **settings).stderr
    shell.run("files", "delete", clip, "--yes", **settings)

    shell.run("db", "check", "--files", **settings)
    orphan = "outputs/00000000-0000-4000-8000-000000000000/1.wav"
    store.put(orphan, b"x")
    store.put("notes.txt", b"x")
    store.put(made.file_path, bytes(made.file_size_bytes))
    problems = shell.run("db", "check", "--files", status=1, **settings).stdout
    assert f"object {orphan}: belongs to no generation" in problems
    assert "object notes.txt: is not part of the library" in problems
    assert f"generation {made.id}: its file {made.file_path} has changed since it was written" in problems
    store.delete(made.file_path)
    assert "is missing" in shell.run("db", "check", status=1, **settings).stdout


def test_an_existing_library_moves_into_a_bucket(shell, s3, bucket, tmp_path):
    settings = s3.settings(bucket, prefix="music")
    without_url = {name: value for name, value in settings.items() if name != "DGX_MUSIC_LIBRARY_URL"}
    [made] = shell.generations("generate", "techno", "--duration", "0.5", "--model", "sketch")
    shell.run("render", made.id, "--format", "flac", "--output", str(tmp_path / "x.flac"))
    shell.run("files", "import", str(tmp_path / "x.flac"))
    folder = {path.name for path in tmp_path.rglob("*-*.*") if path.suffix in (".wav", ".flac")}
    for uploaded in (3, 0):
        done = json.loads(shell.run("files", "upload-to", f"s3://{bucket}/music", "--json", **without_url).stdout)
        assert (done["uploaded"], done["present"]) == (uploaded, 3 - uploaded)
    assert {path.name for path in tmp_path.rglob("*-*.*") if path.suffix in (".wav", ".flac")} == folder
    for name in ("outputs", "clips", "renders"):
        shutil.rmtree(tmp_path / name)
    refused = shell.run("files", "upload-to", f"s3://{bucket}//music", status=1, **without_url).stderr
    assert "URL must have a prefix without empty parts" in refused
    shell.run("db", "check", "--files", **settings)
    listed = [json.loads(line) for line in shell.run("files", "list", "--json", **settings).stdout.splitlines()]
    assert [one["kind"] for one in listed] == ["FILE_KIND_OUTPUT", "FILE_KIND_CLIP", "FILE_KIND_RENDER"]
    shell.run("download", made.id, "--output", str(tmp_path / "saved.wav"), **settings)
    saved = hashlib.sha256((tmp_path / "saved.wav").read_bytes()).hexdigest()
    assert saved == made.metadata["file_sha256"]


def test_doctor_says_what_is_missing(shell, s3, bucket):
    def advice(**settings):
        findings = json.loads(shell.run("doctor", "--json", status=1, **settings).stdout)["findings"]
        [found] = [one for one in findings if one["name"] == "object storage"]
        assert found["state"] == "broken"
        return found["advice"]

    assert "denied access" in advice(**s3.settings(bucket, READER))
    assert "does not exist" in advice(**(s3.settings("no-such-bucket", READER)))
    settings = s3.settings(bucket, ADMINISTRATOR) | {"AWS_SECRET_ACCESS_KEY": "wrong"}
    assert "denied access" in advice(**settings)
    assert "must have a prefix" in advice(**settings | {"DGX_MUSIC_LIBRARY_URL": f"s3://{bucket}/a//b"})
    assert "must be s3://bucket" in advice(**settings | {"DGX_MUSIC_LIBRARY_URL": "s3://key:secret@bucket"})
    assert "connection was refused" in advice(**s3.settings(bucket, address="127.0.0.1:1"))
