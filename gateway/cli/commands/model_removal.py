"""Finds the files that `models remove` may delete: of a model or an adapter in the data directory, or what `pull`
downloaded."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.cli.commands.model_download import find_pulled_model
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.command_settings import load_settings
from gateway.config import GatewaySettings
from generation_service.models.model_folders import local_folders
from generation_service.models.musicgen.adapters.installed_adapters import find_adapters
from generation_service.models.published import PUBLISHED


class RemovableModel(Protocol):
    """The files of a model."""

    @property
    def place(self) -> Path:
        """Where they are."""
        ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def remark(self) -> str:
        """What the user is told once they are deleted; it follows the model's name."""
        ...

    def remove(self) -> None:
        """Deletes them."""
        ...


@dataclass(frozen=True, slots=True)
class LocalModel:
    """The folder of a model or an adapter in the data directory."""

    place: Path
    remark: str = ""

    @property
    def size_bytes(self) -> int:
        if self.place.is_symlink():
            return 0
        return sum(file.stat().st_size for file in self.place.rglob("*") if file.is_file() and not file.is_symlink())

    def remove(self) -> None:
        """Deletes the folder. If it is a link, what it points to is left alone."""
        if self.place.is_symlink():
            self.place.unlink()
        else:
            shutil.rmtree(self.place)


def find_removable_model(name: str, data_dir: Path | None) -> RemovableModel:
    """Returns the files that the name stands for: first those in the data directory, which take precedence in use too.

    Raises CommandError if there are none, or only some that dgx-music did not download.
    """
    root = load_settings(GatewaySettings, data_dir).data_dir.expanduser().absolute()
    if folder := local_folders(root / "models").get(name):
        return LocalModel(folder)
    if folder := {adapter.name: adapter.folder for adapter in find_adapters(root / "adapters")}.get(name):
        return LocalModel(folder)
    if name not in PUBLISHED:
        raise CommandError(
            f"NAME: there is no model or adapter {name[:100]!r} here; list them with `dgx-music models`", BAD_INPUT
        )
    return find_pulled_model(name)
