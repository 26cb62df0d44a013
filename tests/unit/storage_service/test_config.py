"""The settings of the storage service."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from storage_service.config import StorageSettings
from storage_service.db import schema
from storage_service.db.database import Database


def test_database_url_defaults_to_file_in_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_database: Callable[..., Database]
) -> None:
    monkeypatch.delenv("DGX_MUSIC_DATABASE_URL", raising=False)
    settings = StorageSettings(data_dir=tmp_path / "new folder" / "ü?%")
    opened = open_database(settings.resolved_database_url())
    schema.ensure(opened)
    assert (tmp_path / "new folder" / "ü?%" / "dgx_music.db").is_file()
    assert StorageSettings(database_url="sqlite:///x.db").resolved_database_url() == "sqlite:///x.db"
    assert "sqlite" not in repr(StorageSettings(database_url="sqlite:///x.db"))


def test_settings_are_read_without_sqlalchemy() -> None:
    program = "import sys, storage_service.config\nassert 'sqlalchemy' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", program], check=True)
