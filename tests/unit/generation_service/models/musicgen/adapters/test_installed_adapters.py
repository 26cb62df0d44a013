"""The folders that are adapters."""

from __future__ import annotations

from pathlib import Path

from generation_service.models.musicgen.adapters.installed_adapters import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    find_adapters,
)


def test_folders_with_a_configuration_are_adapters_sorted_by_name(tmp_path: Path) -> None:
    for name in ("vinyl", "jazz"):
        (tmp_path / name).mkdir()
        (tmp_path / name / CONFIG_FILE).touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "file").touch()
    assert [adapter.name for adapter in find_adapters(tmp_path)] == ["jazz", "vinyl"]
    assert find_adapters(tmp_path / "none") == []


def test_fingerprint_changes_with_each_file(tmp_path: Path) -> None:
    folder = tmp_path / "jazz"
    folder.mkdir()
    (folder / CONFIG_FILE).touch()
    (adapter,) = find_adapters(tmp_path)
    fingerprints = {adapter.fingerprint()}
    assert fingerprints == {()}
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        (folder / name).write_text("changed")
        fingerprints.add(adapter.fingerprint())
    assert len(fingerprints) == 3
