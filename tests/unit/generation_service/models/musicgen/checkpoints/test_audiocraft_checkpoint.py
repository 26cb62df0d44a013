"""Reading checkpoint files in audiocraft's format, and rejecting others."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")


from dgx_music.errors import FailedPrecondition  # noqa: E402
from generation_service.models.musicgen.checkpoints.checkpoint import COMPRESSION_FILE, LM_FILE  # noqa: E402
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint  # noqa: E402
from generation_service.models.musicgen.checkpoints.xp_config import parse_xp_config  # noqa: E402
from tests.support.checkpoints import TINY, lm_weights, save_lm_package, write_lm  # noqa: E402

_BOMB = "\n".join(["a0: [x, x]", *(f"a{i}: ['${{a{i - 1}}}', '${{a{i - 1}}}']" for i in range(1, 16)), "b: &b [x, x]"])
_BOMB += "\nc: [" + ", ".join(["'${a15}'"] * 100) + "]"
"""References that multiply: six million values in a few lines."""


def test_digest_changes_with_a_single_weight(tmp_path: Path) -> None:
    digests = []
    for name, weight in (("a", 0.0), ("b", 1.0), ("c", 0.0)):
        (tmp_path / name).mkdir()
        weights = lm_weights(TINY, 4, 0)
        weights["emb.0.weight"][3, 3] = weight
        path = save_lm_package(tmp_path / name, {"best_state": weights, "xp.cfg": "{a: 1}"})
        digests.append(read_checkpoint(path).digest)
    assert digests[0] == digests[2] != digests[1]


def test_digest_changes_with_the_codec_in_the_folder(tmp_path: Path) -> None:
    path = save_lm_package(tmp_path, {"best_state": lm_weights(TINY, 4, 0), "xp.cfg": "{a: 1}"})
    digests = {read_checkpoint(path).digest}
    for content in ({"a": torch.zeros(1)}, {"a": torch.ones(1)}):
        torch.save(content, tmp_path / COMPRESSION_FILE)
        digests.add(read_checkpoint(path).digest)
    assert len(digests) == 3


def test_replaced_file_is_not_loaded(tmp_path: Path) -> None:
    path = save_lm_package(tmp_path, {"best_state": lm_weights(TINY, 4, 0), "xp.cfg": "{a: 1}"})
    checkpoint = read_checkpoint(path)
    save_lm_package(tmp_path, {"best_state": lm_weights(TINY, 4, 1), "xp.cfg": "{a: 1}"})
    with pytest.raises(FailedPrecondition, match="the file was replaced during loading; load the model again"):
        checkpoint.map_tensors()


def test_xp_config_references_are_resolved(tmp_path: Path) -> None:
    config = parse_xp_config("{a: '${b.c}', b: {c: '${d}'}, d: 5, e: ['${d}'], f: '${nowhere}'}", tmp_path)
    assert config == {"a": 5, "b": {"c": 5}, "d": 5, "e": [5], "f": "${nowhere}"}
    with pytest.raises(FailedPrecondition, match="itself"):
        parse_xp_config("{a: '${b}', b: '${a}'}", tmp_path)


class Malicious:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("executed",)


def test_invalid_checkpoint_file_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / LM_FILE
    with pytest.raises(FailedPrecondition, match=r"no such file; expected a folder with audiocraft's state_dict\.bin"):
        read_checkpoint(path)

    whole = write_lm(tmp_path, TINY).read_bytes()
    for size in (0, 1000, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:size])
        with pytest.raises(FailedPrecondition, match="truncated"):
            read_checkpoint(path)
    path.write_bytes(pickle.dumps({"best_state": {}}))
    with pytest.raises(FailedPrecondition, match=r"was not written by torch\.save"):
        read_checkpoint(path)
    save_lm_package(tmp_path, {"best_state": {}, "xp.cfg": Malicious()})
    with pytest.raises(FailedPrecondition, match=r"reading it would run posix\.mkdir; only files of tensors") as caught:
        read_checkpoint(path)
    assert caught.value.reason == "CHECKPOINT_UNSAFE"
    assert not (tmp_path / "executed").exists()

    for package, problem in (
        ({"model": torch.zeros(1)}, r"expected best_state and xp.cfg, as audiocraft exports them; found \['model'\]"),
        (torch.zeros(3), "found Tensor"),
        ({"best_state": [1], "xp.cfg": ""}, "best_state is not a mapping of tensors"),
        ({"best_state": {}, "xp.cfg": "{"}, "xp.cfg is not valid YAML"),
        ({"best_state": {}, "xp.cfg": "text"}, "xp.cfg is not a mapping"),
        ({"best_state": {}, "xp.cfg": "[" * 5000}, "xp.cfg is not valid YAML"),
        ({"best_state": {}, "xp.cfg": "a: 2026-99-99"}, "xp.cfg is not valid YAML"),
        ({"best_state": {}, "xp.cfg": _BOMB}, "xp.cfg has more than 100,000 values"),
        ({"best_state": {}, "xp.cfg": "a: &a [*a]"}, "nested more than 64 deep"),
        ({"best_state": {7: torch.zeros(1)}, "xp.cfg": "{}"}, "'7' is a Tensor; expected only tensors by their names"),
        ({"best_state": {"x": None}, "xp.cfg": "{}"}, "'x' is a NoneType; expected only tensors"),
        ({"best_state": {"x": torch.zeros(1).expand(1 << 20, 1 << 20)}, "xp.cfg": "{}"}, "x does not have the data"),
        ({"best_state": {"x": torch.zeros(9, device="meta")}, "xp.cfg": "{}"}, "x does not have the data"),
        ({"best_state": {"x": torch.eye(9).to_sparse()}, "xp.cfg": "{}"}, "x does not have the data"),
    ):
        save_lm_package(tmp_path, package)
        with pytest.raises(FailedPrecondition, match=problem):
            read_checkpoint(path)


def test_compressed_archive_is_rejected(tmp_path: Path) -> None:
    path = save_lm_package(tmp_path, {"best_state": {"x": torch.zeros(1 << 20)}, "xp.cfg": "{}"})
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(FailedPrecondition, match="the archive is compressed"):
        read_checkpoint(path)
