"""Signed files, verified by c2pa's own reader."""

from __future__ import annotations

import builtins
import errno
import json
import os
import resource
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import c2pa
import imageio_ffmpeg
import mutagen
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

from dgx_music.errors import FailedPrecondition
from export_service.formats import provenance, writer
from export_service.formats.codecs import CODECS
from export_service.formats.provenance import (
    Signer,
    create_signer,
    signed_part_path,
    staged_manifest_path,
)
from export_service.formats.reader import open_sequential
from export_service.formats.writer import AudioFile
from export_service.library.store import Library
from export_service.tagging.containers import read_comment
from export_service.tagging.disclosure import AiDisclosure
from export_service.tagging.tags import FileTags
from service_runtime.audio.output_options import FileFormat
from tests.support.certificates import KEYS, make_credentials, pem

TAGS = FileTags("12345678-9abc-def0-1234-56789abcdef0", 1, "dgx-music 0.1", "sketch 1", "house", 124.5, "C minor")
MEDIA_TYPES = {"WAV": "audio/wav", "FLAC": "audio/flac", "MP3": "audio/mpeg", "M4A": "audio/mp4"}
"""Of the containers in which manifests are embedded. With a manifest of its own, c2pa reads a file of any type."""


@pytest.fixture
def credentials(tmp_path):
    return partial(make_credentials, tmp_path)


def write_file(path, format_, signer=None, frames=48_000):
    samples = np.random.default_rng(1).standard_normal((frames, 2)).astype(np.float32) * 0.1
    audio = AudioFile(format_, 48_000, 2, frames, TAGS, 7, signer)
    audio.write(path, [samples], 0.0)
    return audio, audio.sign(path)


def read_samples(path):
    with open_sequential(path) as file:
        return file.read()


def read_manifest(path, container, root=""):
    """What c2pa's reader says of the file and of the manifest beside it, if there is one, trusting the root."""
    trust = {"trust": {"trust_anchors": root}, "verify": {"verify_trust": True}}
    manifest = staged_manifest_path(path)
    beside = {"manifest_data": manifest.read_bytes()} if manifest.exists() else {}
    media_type = MEDIA_TYPES.get(container, "application/octet-stream")
    with c2pa.Context(c2pa.Settings.from_dict(trust)) as context, path.open("rb") as file:
        return json.loads(c2pa.Reader(media_type, file, context=context, **beside).json())


@pytest.mark.parametrize("format_", CODECS)
def test_signed_file_is_valid_and_names_its_creator(tmp_path, credentials, format_):
    files = credentials()
    audio, signature = write_file(tmp_path / "a", format_, create_signer(files.certificate, files.private_key))
    _, no_signature = write_file(tmp_path / "plain", format_)
    embedded = audio.container in MEDIA_TYPES
    assert signature == ((AiDisclosure.C2PA if embedded else AiDisclosure.C2PA_SIDECAR),)
    assert no_signature == ()
    assert staged_manifest_path(tmp_path / "a").exists() is not embedded
    found = read_manifest(tmp_path / "a", audio.container, files.root)
    assert found["validation_state"] == "Trusted"
    manifest = found["manifests"][found["active_manifest"]]
    assert manifest["title"] == TAGS.title
    assert manifest["signature_info"]["common_name"] == "Signer"
    assert manifest["claim_generator_info"][0].items() >= {"name": "dgx-music", "version": "0.1"}.items()
    [actions] = [one["data"]["actions"] for one in manifest["assertions"] if one["label"].startswith("c2pa.actions")]
    assert actions == [
        {
            "action": "c2pa.created",
            "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
            "softwareAgent": {"name": "sketch 1"},
        }
    ]
    np.testing.assert_array_equal(*(read_samples(tmp_path / name) for name in ("a", "plain")))
    assert read_comment(tmp_path / "a") == TAGS.comment


def test_signed_mp3_keeps_its_tags(tmp_path, credentials):
    files = credentials()
    write_file(tmp_path / "a.mp3", FileFormat.MP3, create_signer(files.certificate, files.private_key))
    write_file(tmp_path / "plain.mp3", FileFormat.MP3)
    signed, plain = (mutagen.File(tmp_path / name).tags for name in ("a.mp3", "plain.mp3"))
    assert {name: str(signed[name]) for name in plain} == {name: str(plain[name]) for name in plain}


@pytest.mark.parametrize("format_", [FileFormat.WAV_PCM_24, FileFormat.FLAC_16, FileFormat.MP3, FileFormat.OGG_OPUS])
def test_modified_file_is_invalid(tmp_path, credentials, format_):
    files = credentials()
    audio, _ = write_file(tmp_path / "a", format_, create_signer(files.certificate, files.private_key))
    content = bytearray((tmp_path / "a").read_bytes())
    content[len(content) * 3 // 4] ^= 1
    (tmp_path / "a").write_bytes(content)
    assert read_manifest(tmp_path / "a", audio.container, files.root)["validation_state"] == "Invalid"


def test_manifest_of_odd_size_is_valid(tmp_path, credentials):
    files = credentials()
    signer, sizes = Signer(files.certificate, files.private_key), set()
    for genre in ("house", "houses", "housess"):
        path = tmp_path / genre
        write_file(path, FileFormat.WAV_PCM_16)
        signer.sign(path, "WAV", replace(TAGS, genre=genre))
        content = path.read_bytes()
        sizes.add(struct.unpack_from("<I", content, content.rindex(b"C2PA") + 4)[0] % 2)
        assert struct.unpack_from("<I", content, 4)[0] + 8 == len(content)
        assert read_manifest(path, "WAV", files.root)["validation_state"] == "Trusted"
    assert sizes == {0, 1}


def test_file_without_tags_is_signed(tmp_path, credentials):
    files = credentials()
    write_file(tmp_path / "a", FileFormat.FLAC_16)
    stripped = FileTags.parse_comment("", TAGS.generation_id)
    assert Signer(files.certificate, files.private_key).sign(tmp_path / "a", "FLAC", stripped) is AiDisclosure.C2PA
    assert read_manifest(tmp_path / "a", "FLAC", files.root)["validation_state"] == "Trusted"


def test_rf64_file_gets_manifest_beside_it(tmp_path, credentials, monkeypatch):
    monkeypatch.setattr(writer, "MAX_WAV_BYTES", 1000)
    files = credentials()
    audio, signature = write_file(
        tmp_path / "a", FileFormat.WAV_PCM_24, create_signer(files.certificate, files.private_key)
    )
    write_file(tmp_path / "plain", FileFormat.WAV_PCM_24)
    assert (audio.container, signature) == ("RF64", (AiDisclosure.C2PA_SIDECAR,))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "plain").read_bytes()
    assert read_manifest(tmp_path / "a", audio.container, files.root)["validation_state"] == "Trusted"


def test_m4a_file_is_signed_by_the_library_up_to_its_limit(tmp_path, credentials, monkeypatch):
    files = credentials()
    signer, path = Signer(files.certificate, files.private_key), tmp_path / "a.m4a"
    encode = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", "sine", "-t", "1", "-c:a", "aac"]
    subprocess.run([*encode, path], check=True)
    samples = read_samples(path)
    assert signer.sign(path, "M4A", TAGS) is AiDisclosure.C2PA
    assert read_manifest(path, "M4A", files.root)["validation_state"] == "Trusted"
    monkeypatch.setattr(provenance, "MAX_BUFFERED_BYTES", path.stat().st_size - 1)
    assert signer.sign(path, "M4A", TAGS) is AiDisclosure.C2PA_SIDECAR
    assert read_manifest(path, "M4A", files.root)["validation_state"] == "Trusted"
    staged_manifest_path(path).unlink()
    with pytest.raises(c2pa.C2paError, match="ManifestNotFound"):
        read_manifest(path, "M4A", files.root)  # The embedded one, which no longer fits, is gone.
    np.testing.assert_array_equal(read_samples(path), samples)


@pytest.mark.parametrize("container", ["WAV", "MP3", "OGG"])
def test_memory_does_not_grow_with_the_file(tmp_path, credentials, container):
    files = credentials()
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.truncate(48 << 20)
    code = (
        "import resource, sys; from pathlib import Path; from export_service.formats.provenance import *\n"
        "signer = Signer(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "usage = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = usage(); signer.sign(Path(sys.argv[3]), sys.argv[4], SAMPLE_TAGS); print(usage() - before)"
    )
    arguments = [files.certificate, files.private_key, path, container]
    grown = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    assert int(grown.stdout) < 16 << 10  # In KiB.


@pytest.mark.parametrize("kind", KEYS)
def test_every_key_type_signs(tmp_path, credentials, kind):
    files = credentials(kind)
    audio, _ = write_file(
        tmp_path / "a",
        FileFormat.WAV_PCM_16,
        create_signer(files.certificate, files.private_key),
    )
    assert read_manifest(tmp_path / "a", audio.container, files.root)["validation_state"] == "Trusted"


def test_signer_is_thread_safe(tmp_path, credentials):
    files = credentials()
    shared_signer = create_signer(files.certificate, files.private_key)
    with ThreadPoolExecutor(8) as threads:
        paths = [tmp_path / f"{number}" for number in range(24)]
        list(threads.map(lambda path: write_file(path, FileFormat.WAV_PCM_24, shared_signer), paths))
    assert {read_manifest(path, "WAV", files.root)["validation_state"] for path in paths} == {"Trusted"}


def test_create_signer_without_settings_returns_none():
    assert create_signer(None, None) is None


def test_create_signer_with_one_setting_is_rejected(tmp_path):
    with raises_failed_precondition("DGX_MUSIC_C2PA_CERTIFICATE is set, but DGX_MUSIC_C2PA_PRIVATE_KEY is not"):
        create_signer(tmp_path / "a", None)
    with raises_failed_precondition("DGX_MUSIC_C2PA_PRIVATE_KEY is set, but DGX_MUSIC_C2PA_CERTIFICATE is not"):
        create_signer(None, tmp_path / "a")


def test_create_signer_with_unreadable_files_is_rejected(tmp_path, credentials):
    files = credentials()
    absent, text = tmp_path / "absent", tmp_path / "text"
    text.write_text("no certificate")
    with raises_failed_precondition("DGX_MUSIC_C2PA_CERTIFICATE=.*absent can't be read: No such file"):
        create_signer(absent, files.private_key)
    with raises_failed_precondition("DGX_MUSIC_C2PA_PRIVATE_KEY=.*absent can't be read: No such file"):
        create_signer(files.certificate, absent)
    with raises_failed_precondition("can't sign: .*certificate"):
        create_signer(text, files.private_key)
    with raises_failed_precondition("can't sign: "):
        create_signer(files.certificate, text)


def test_create_signer_with_mismatched_or_expired_credentials_is_rejected(credentials):
    files, other, old = credentials(), credentials(name="other"), credentials(days_ago=90, name="old")
    with raises_failed_precondition("can't sign: .*signature does not match"):
        create_signer(files.certificate, other.private_key)
    with raises_failed_precondition("can't sign: .*not valid at time of signing"):
        create_signer(old.certificate, old.private_key)


def test_create_signer_with_unsupported_key_is_rejected(credentials):
    files = credentials()
    files.private_key.write_bytes(pem(KEYS["p256"](), BestAvailableEncryption(b"secret")))
    with raises_failed_precondition("can't sign: Password was not given"):
        create_signer(files.certificate, files.private_key)
    files.private_key.write_bytes(pem(dsa.generate_private_key(1024)))
    with raises_failed_precondition("can't sign: the key must be an ECDSA"):
        create_signer(files.certificate, files.private_key)


def test_create_signer_without_c2pa_extra_names_the_install_command(credentials, monkeypatch):
    real = builtins.__import__

    def without_c2pa(name, *arguments, **named):
        if name == "c2pa":
            raise ImportError(name)
        return real(name, *arguments, **named)

    files = credentials()
    monkeypatch.setattr(builtins, "__import__", without_c2pa)
    with raises_failed_precondition(r"pip install 'dgx-music\[c2pa\]'") as raised:
        create_signer(files.certificate, files.private_key)
    assert raised.value.reason == "C2PA_NOT_INSTALLED"


def test_sign_on_full_disk_raises_os_error(tmp_path, credentials):
    files = credentials()
    shared_signer = Signer(files.certificate, files.private_key)
    write_file(tmp_path / "a.part", FileFormat.WAV_PCM_24)
    content = (tmp_path / "a.part").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, hard))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            shared_signer.sign(tmp_path / "a.part", "WAV", TAGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.errno == errno.EFBIG
    assert (tmp_path / "a.part").read_bytes() == content
    assert sorted(path for path in os.listdir(tmp_path) if "part" in path) == ["a.part"]


def test_leftover_signed_parts_are_removed_at_startup(tmp_path):
    library = Library(tmp_path)
    library.open()
    for part in (library.staging_path(TAGS.generation_id, 1), library.renders.staging_path(TAGS.generation_id)):
        signed_part_path(part).write_bytes(b"half")
    library.open()
    assert not list(tmp_path.rglob("*.part"))


def test_sign_invalid_file_is_rejected(tmp_path, credentials):
    files = credentials()
    part = tmp_path / "a.part"
    part.write_bytes(b"no audio at all")
    with raises_failed_precondition("failed to sign the file: .*DGX_MUSIC_C2PA_CERTIFICATE") as raised:
        Signer(files.certificate, files.private_key).sign(part, "M4A", TAGS)
    assert raised.value.reason == "C2PA_SIGNING_FAILED"
    assert part.read_bytes() == b"no audio at all"
    assert [path.name for path in tmp_path.glob("*.part")] == ["a.part"]


def raises_failed_precondition(match):
    return pytest.raises(FailedPrecondition, match=match)
