"""The settings of the storage service, in addition to those that all services share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from dgx_music.errors import FailedPrecondition
from service_runtime.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import URL


class StorageSettings(Settings):
    """Each field is set by the environment variable `DGX_MUSIC_<NAME>`."""

    database_url: str | None = Field(default=None, repr=False)
    """sqlite:///PATH or postgresql://USER@HOST/DATABASE. With several hosts, HOST:PORT,HOST:PORT, the one that allows
    writing is used. Unset: the file dgx_music.db in the data directory."""
    database_url_file: Path | None = None
    """File that contains the database URL, in place of `database_url`."""
    database_timeout_seconds: float = Field(default=5.0, gt=0)
    """How long to wait for a database that is locked or does not answer."""
    database_connections: int = Field(default=8, ge=1, le=100)
    """How many transactions a server runs on Postgres at a time, each on a connection. It has three connections more:
    for its health, and to tell and to be told of changes. Postgres's max_connections must allow for all servers."""
    lease_sweep_seconds: float = Field(default=5.0, gt=0)
    """The longest time between two checks for expired leases."""
    max_attempts: int = Field(default=3, ge=1, le=20)
    """The number of attempts after which a generation fails permanently."""
    max_pending: int = Field(default=50_000, ge=1)
    """The number of generations that may be pending or processing at a time, of all clients together."""
    max_pending_per_client: int = Field(default=5_000, ge=1)
    """The number that may be pending or processing of one client, unless its token allows fewer."""
    preempt_after_seconds: float = Field(default=10.0, ge=0)
    """After how long the first generation in the queue takes the place of a running one of lower priority, which is
    handed back and later goes on from where it was. 0: never. If all priorities are equal, none is handed back."""

    def resolved_database_url(self) -> str | URL:
        """Returns the database URL, or the default if none is set. Raises FailedPrecondition, which names the setting,
        if two are set or the file can't be read."""
        if self.database_url_file is not None:
            return self._read_database_url(self.database_url_file)
        if self.database_url is not None:
            return self.database_url
        from sqlalchemy import URL  # Imported here so that reading the settings does not load SQLAlchemy.

        # A path that contains a question mark can't be written as a URL string.
        return URL.create("sqlite", database=str(self.data_dir.expanduser().absolute() / "dgx_music.db"))

    def _read_database_url(self, file: Path) -> str:
        if self.database_url is not None:
            raise _unusable("DGX_MUSIC_DATABASE_URL and DGX_MUSIC_DATABASE_URL_FILE are both set; set one of them")
        try:
            url = file.expanduser().read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            problem = getattr(error, "strerror", None) or error
            raise _unusable(f"DGX_MUSIC_DATABASE_URL_FILE={file}: the file can't be read: {problem}") from error
        if not url:
            raise _unusable(f"DGX_MUSIC_DATABASE_URL_FILE={file}: the file is empty; write the URL into it")
        return url

    def shown_database_url(self) -> str:
        """Returns the database URL without its passwords."""
        from storage_service.database_url import mask_url

        return mask_url(self.resolved_database_url())


def _unusable(problem: str) -> FailedPrecondition:
    return FailedPrecondition(problem, reason="DATABASE_URL_INVALID", metadata={"field": "database_url_file"})
