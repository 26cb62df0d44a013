"""Settings come from the environment and are checked."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from export_service.config import ExportSettings


def test_defaults_are_the_house_level():
    settings = ExportSettings()
    assert (settings.target_lufs, settings.ceiling_dbtp, settings.spool_keep_seconds) == (-16.0, -1.0, 600.0)


def test_environment_sets_them(monkeypatch):
    monkeypatch.setenv("DGX_MUSIC_TARGET_LUFS", "-23")
    assert ExportSettings().target_lufs == -23


@pytest.mark.parametrize(("name", "value"), [("TARGET_LUFS", "3"), ("CEILING_DBTP", "1"), ("SPOOL_KEEP_SECONDS", "-1")])
def test_what_can_not_be_is_refused(monkeypatch, name, value):
    monkeypatch.setenv(f"DGX_MUSIC_{name}", value)
    with pytest.raises(ValidationError):
        ExportSettings()


def test_clips_are_bounded():
    settings = ExportSettings()
    assert (settings.max_clip_bytes, settings.max_clip_seconds) == (256 * 2**20, 600.0)
