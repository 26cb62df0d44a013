"""The settings of the storage service, in addition to those that all services share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from service_runtime.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import URL


class StorageSettings(Settings):
    """Each field is set by the environment variable `DGX_MUSIC_<NAME>`."""

    database_url: str | None = Field(default=None, repr=False)
    """sqlite:///PATH or postgresql://USER@HOST/DATABASE. With several hosts, HOST:PORT,HOST:PORT, the one that allows
    writing is used. Unset: the file dgx_music.db in the data directory."""
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

    def resolved_database_url(self) -> str | URL:
        """Returns the database URL, or the default if none is set."""
        if self.database_url is not None:
            return self.database_url
        from sqlalchemy import URL  # Imported here so that reading the settings does not load SQLAlchemy.

        # A path that contains a question mark can't be written as a URL string.
        return URL.create("sqlite", database=str(self.data_dir.expanduser().absolute() / "dgx_music.db"))

    def shown_database_url(self) -> str:
        """Returns the database URL without its passwords."""
        from storage_service.database_url import mask_url

        return mask_url(self.resolved_database_url())
