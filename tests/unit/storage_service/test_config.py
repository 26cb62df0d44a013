"""The settings of the storage service."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dgx_music.errors import FailedPrecondition
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


def test_database_url_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://me:secret@host/music\n")
    settings = StorageSettings(database_url_file=file)
    assert settings.resolved_database_url() == "postgresql://me:secret@host/music"
    assert settings.shown_database_url() == "postgresql://me:***@host/music"


def test_database_url_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for settings, problem in (
        (StorageSettings(database_url_file=empty), f"FILE={empty}: the file is empty"),
        (StorageSettings(database_url_file=tmp_path / "none"), "the file can't be read: No such file"),
        (StorageSettings(database_url_file=empty, database_url="sqlite:///x.db"), "both set; set one of them"),
    ):
        with pytest.raises(FailedPrecondition, match=re.escape(problem)):
            settings.resolved_database_url()


def test_settings_are_read_without_sqlalchemy() -> None:
    program = "import sys, storage_service.config\nassert 'sqlalchemy' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", program], check=True)
