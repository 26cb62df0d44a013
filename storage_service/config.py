"""What storage is set by, beside what all services share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from service_runtime.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import URL


class StorageSettings(Settings):
    """`DGX_MUSIC_<NAME>` in the environment."""

    database_url: str | None = Field(default=None, repr=False)
    """sqlite:///PATH or postgresql://USER@HOST/DATABASE. Unset: the file dgx_music.db in the data directory."""
    database_timeout_seconds: float = Field(default=5.0, gt=0)
    """How long to wait for a database that is locked or does not answer."""
    lease_sweep_seconds: float = Field(default=5.0, gt=0)
    """At least this often, expired leases are looked for."""
    max_attempts: int = Field(default=3, ge=1, le=20)
    """Attempts after which a generation fails for good."""

    def resolved_database_url(self) -> str | URL:
        """The database's URL, the default included."""
        if self.database_url is not None:
            return self.database_url
        from sqlalchemy import URL  # Who wants other settings only does not pay for it.

        # A path with a question mark in it can't be written as text.
        return URL.create("sqlite", database=str(self.data_dir.expanduser().absolute() / "dgx_music.db"))

    def shown_database_url(self) -> str:
        """The database's URL without its password."""
        from sqlalchemy.engine import make_url

        return make_url(self.resolved_database_url()).render_as_string(hide_password=True)
