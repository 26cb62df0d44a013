"""Signed files, with certificates made here, as c2pa's own reader judges them."""

from __future__ import annotations

import builtins
import errno
import json
import os
import resource
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import c2pa
import mutagen
import numpy as np
import pytest
import soundfile
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

from dgx_music.errors import FailedPrecondition
from export_service.formats import writer
from export_service.formats.codecs import FORMS
from export_service.formats.provenance import MEDIA_TYPES, Mark, Signer, signed_part, signer
from export_service.formats.tags import FileTags
from export_service.formats.writer import AudioFile
from export_service.library.store import Library
from service_runtime.audio.output_options import FileFormat
from tests.support.certificates import KEYS, make_credentials, pem

TAGS = FileTags("12345678-9abc-def0-1234-56789abcdef0", 1, "dgx-music 0.1", "sketch 1", "house", 124.5, "C minor")
SIGNED = [format_ for format_, form in FORMS.items() if form.container in MEDIA_TYPES]


@pytest.fixture
def credentials(tmp_path):
    return partial(make_credentials, tmp_path)


def written(path, format_, signer=None, frames=48_000):
    samples = np.random.default_rng(1).standard_normal((frames, 2)).astype(np.float32) * 0.1
    audio = AudioFile(format_, 48_000, 2, frames, TAGS, 7, signer)
    audio.write(path, [samples], 0.0)
    audio.sign(path)
    return audio


def read(path, container, root=""):
    """What c2pa's reader says of the file, trusting the root."""
    trust = {"trust": {"trust_anchors": root}, "verify": {"verify_trust": True}}
    with c2pa.Context(c2pa.Settings.from_dict(trust)) as context, path.open("rb") as file:
        return json.loads(c2pa.Reader(MEDIA_TYPES[container], file, context=context).json())


@pytest.mark.parametrize("format_", SIGNED)
def test_a_signed_file_is_valid_and_says_who_made_it(tmp_path, credentials, format_):
    made = credentials()
    audio = written(tmp_path / "a", format_, signer(made.certificate, made.private_key))
    plain = written(tmp_path / "plain", format_)
    assert audio.marks == (*plain.marks, Mark.C2PA)
    found = read(tmp_path / "a", audio.container, made.root)
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
    samples, unsigned = (soundfile.read(tmp_path / name, dtype="int32")[0] for name in ("a", "plain"))
    np.testing.assert_array_equal(samples, unsigned)
    with soundfile.SoundFile(tmp_path / "a") as file:
        assert file.comment == TAGS.comment


def test_a_signed_mp3_keeps_all_its_tags(tmp_path, credentials):
    made = credentials()
    written(tmp_path / "a.mp3", FileFormat.MP3, signer(made.certificate, made.private_key))
    written(tmp_path / "plain.mp3", FileFormat.MP3)
    signed, plain = (mutagen.File(tmp_path / name).tags for name in ("a.mp3", "plain.mp3"))
    assert {name: str(signed[name]) for name in plain} == {name: str(plain[name]) for name in plain}


def test_a_changed_file_is_not_valid(tmp_path, credentials):
    made = credentials()
    written(tmp_path / "a", FileFormat.WAV_PCM_24, signer(made.certificate, made.private_key))
    content = bytearray((tmp_path / "a").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a").write_bytes(content)
    assert read(tmp_path / "a", "WAV", made.root)["validation_state"] == "Invalid"


@pytest.mark.parametrize("kind", KEYS)
def test_every_kind_of_key_signs(tmp_path, credentials, kind):
    made = credentials(kind)
    audio = written(tmp_path / "a", FileFormat.WAV_PCM_16, signer(made.certificate, made.private_key))
    assert read(tmp_path / "a", audio.container, made.root)["validation_state"] == "Trusted"


@pytest.mark.parametrize("format_", [FileFormat.OGG_VORBIS, FileFormat.WAV_PCM_24])
def test_what_cannot_be_signed_is_as_without_a_certificate(tmp_path, credentials, monkeypatch, format_):
    monkeypatch.setattr(writer, "LARGEST_WAV_BYTES", 1000)
    made = credentials()
    audio = written(tmp_path / "a", format_, signer(made.certificate, made.private_key))
    plain = written(tmp_path / "plain", format_)
    assert audio.marks == plain.marks
    assert (tmp_path / "a").read_bytes() == (tmp_path / "plain").read_bytes()


def test_one_signer_signs_on_many_threads_at_once(tmp_path, credentials):
    made = credentials()
    signs = signer(made.certificate, made.private_key)
    with ThreadPoolExecutor(8) as threads:
        paths = [tmp_path / f"{number}" for number in range(24)]
        list(threads.map(lambda path: written(path, FileFormat.WAV_PCM_24, signs), paths))
    assert {read(path, "WAV", made.root)["validation_state"] for path in paths} == {"Trusted"}


def test_nothing_is_signed_unless_asked():
    assert signer(None, None) is None


def test_half_of_the_settings(tmp_path):
    with refused("DGX_MUSIC_C2PA_CERTIFICATE is set, but DGX_MUSIC_C2PA_PRIVATE_KEY is not"):
        signer(tmp_path / "a", None)
    with refused("DGX_MUSIC_C2PA_PRIVATE_KEY is set, but DGX_MUSIC_C2PA_CERTIFICATE is not"):
        signer(None, tmp_path / "a")


def test_files_that_are_none(tmp_path, credentials):
    made = credentials()
    absent, text = tmp_path / "absent", tmp_path / "text"
    text.write_text("no certificate")
    with refused("DGX_MUSIC_C2PA_CERTIFICATE=.*absent can't be read: No such file"):
        signer(absent, made.private_key)
    with refused("DGX_MUSIC_C2PA_PRIVATE_KEY=.*absent can't be read: No such file"):
        signer(made.certificate, absent)
    with refused("can't sign: .*certificate"):
        signer(text, made.private_key)
    with refused("can't sign: "):
        signer(made.certificate, text)


def test_credentials_that_do_not_go_together_or_are_not_valid(credentials):
    made, other, old = credentials(), credentials(name="other"), credentials(days_ago=90, name="old")
    with refused("can't sign: .*signature does not match"):
        signer(made.certificate, other.private_key)
    with refused("can't sign: .*not valid at time of signing"):
        signer(old.certificate, old.private_key)


def test_keys_that_can_not_be_taken(credentials):
    made = credentials()
    made.private_key.write_bytes(pem(KEYS["p256"](), BestAvailableEncryption(b"secret")))
    with refused("can't sign: Password was not given"):
        signer(made.certificate, made.private_key)
    made.private_key.write_bytes(pem(dsa.generate_private_key(1024)))
    with refused("can't sign: the key must be of ECDSA"):
        signer(made.certificate, made.private_key)


def test_without_the_extra_it_says_what_to_install(credentials, monkeypatch):
    real = builtins.__import__

    def without_c2pa(name, *arguments, **named):
        if name == "c2pa":
            raise ImportError(name)
        return real(name, *arguments, **named)

    made = credentials()
    monkeypatch.setattr(builtins, "__import__", without_c2pa)
    with refused(r"pip install 'dgx-music\[c2pa\]'") as raised:
        signer(made.certificate, made.private_key)
    assert raised.value.reason == "C2PA_NOT_INSTALLED"


def test_a_disk_that_is_full_while_signing_is_told_as_such(tmp_path, credentials):
    made = credentials()
    signs = Signer(made.certificate, made.private_key)
    written(tmp_path / "a.part", FileFormat.WAV_PCM_24)
    content = (tmp_path / "a.part").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, hard))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            signs.sign(tmp_path / "a.part", "WAV", TAGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.errno == errno.EFBIG
    assert (tmp_path / "a.part").read_bytes() == content
    assert sorted(path for path in os.listdir(tmp_path) if "part" in path) == ["a.part"]


def test_what_a_killed_process_was_signing_is_swept(tmp_path):
    library = Library(tmp_path)
    library.open()
    for part in (library.part(TAGS.generation_id, 1), library.renders.part(TAGS.generation_id)):
        signed_part(part).write_bytes(b"half")
    library.open()
    assert not list(tmp_path.rglob("*.part"))


def test_a_file_that_can_not_be_signed_is_told_as_such(tmp_path, credentials):
    made = credentials()
    part = tmp_path / "a.part"
    part.write_bytes(b"no audio at all")
    with refused("the file can't be signed: .*DGX_MUSIC_C2PA_CERTIFICATE") as raised:
        Signer(made.certificate, made.private_key).sign(part, "WAV", TAGS)
    assert raised.value.reason == "C2PA_SIGNING_FAILED"
    assert part.read_bytes() == b"no audio at all"
    assert [path.name for path in tmp_path.glob("*.part")] == ["a.part"]


def refused(match):
    return pytest.raises(FailedPrecondition, match=match)
