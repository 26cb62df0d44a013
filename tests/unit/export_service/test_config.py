"""Settings from the environment and their validation."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from export_service.config import ExportSettings


def test_defaults():
    settings = ExportSettings()
    assert (settings.target_lufs, settings.ceiling_dbtp, settings.spool_keep_seconds) == (-16.0, -1.0, 600.0)
    assert (settings.max_clip_bytes, settings.max_clip_seconds) == (256 * 2**20, 600.0)


def test_environment_variable_sets_target(monkeypatch):
    monkeypatch.setenv("DGX_MUSIC_TARGET_LUFS", "-23")
    assert ExportSettings().target_lufs == -23


@pytest.mark.parametrize(("name", "value"), [("TARGET_LUFS", "3"), ("CEILING_DBTP", "1"), ("SPOOL_KEEP_SECONDS", "-1")])
def test_invalid_value_is_rejected(monkeypatch, name, value):
    monkeypatch.setenv(f"DGX_MUSIC_{name}", value)
    with pytest.raises(ValidationError):
        ExportSettings()
