"""Where the object storage is, and how to get in: `DGX_MUSIC_LIBRARY_URL` and the standard AWS_ variables and files.

The client reads the variables itself, and takes the credentials of a role where a platform gives it one. Read here is
only what it does not: the shared credentials file, which is also how a secret is mounted as a file.
"""

from __future__ import annotations

import configparser
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dgx_music.errors import FailedPrecondition

if TYPE_CHECKING:
    from obstore.store import S3Credential

SCHEME = "s3"
CREDENTIALS_SECONDS = 300.0
"""How long credentials from a file are used before it is read again."""
CONNECT_SECONDS = 5.0
ENDPOINT_VARIABLES = "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"
OTHER_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""What takes precedence over the credentials file."""


@dataclass(frozen=True)
class ObjectStorageUrl:
    """The bucket of the library, and what all keys begin with."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str, name: str = "DGX_MUSIC_LIBRARY_URL") -> ObjectStorageUrl:
        """Raises FailedPrecondition for anything but `s3://bucket` and `s3://bucket/prefix`, and for a prefix that the
        client can't use; `name` is what the error names.
        """
        try:
            parts = urlsplit(url)
            is_valid = parts.scheme == SCHEME and parts.netloc == parts.hostname and not (parts.query or parts.fragment)
        except ValueError:
            is_valid = False
        if not is_valid:
            raise FailedPrecondition(
                f"{name} must be s3://bucket or s3://bucket/prefix, with the bucket in lower case; "
                "credentials and endpoint are set by AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL",
                reason="LIBRARY_URL_INVALID",
            )
        prefix = parts.path.removeprefix("/").removesuffix("/")
        if prefix and any(part in ("", ".", "..") or not part.isprintable() for part in prefix.split("/")):
            raise FailedPrecondition(
                f"{name} must have a prefix without empty parts, `.`, `..` and control characters, such as "
                "s3://bucket/music/studio",
                reason="LIBRARY_URL_INVALID",
            )
        return cls(parts.netloc, prefix)

    def __str__(self) -> str:
        return f"{SCHEME}://{self.bucket}/{self.prefix}".rstrip("/")


def find_endpoint() -> str:
    """Returns the endpoint that the environment names; empty for Amazon's own."""
    return next((os.environ[name] for name in ENDPOINT_VARIABLES if os.environ.get(name)), "")


def client_options(seconds: float, endpoint: str | None = None) -> dict[str, Any]:
    """Returns the options of a client whose requests take at most so many seconds each.

    Plain HTTP is used only with an endpoint that says so, and other certificates than the system's are trusted by
    AWS_CA_BUNDLE.
    """
    address = endpoint or find_endpoint()
    options: dict[str, Any] = {
        "timeout": timedelta(seconds=seconds),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "allow_http": address.startswith("http://"),
    }
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        options["root_certificate"] = Path(bundle).read_bytes()
    result: dict[str, Any] = {"client_options": options}
    if endpoint:
        result["endpoint"] = endpoint
    if not any(os.environ.get(name) for name in OTHER_CREDENTIALS) and (path := credentials_path()).is_file():
        result["credential_provider"] = SharedCredentials(path, os.environ.get("AWS_PROFILE") or "default")
    return result


def credentials_path() -> Path:
    """Returns the path of the shared credentials file."""
    return Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials")


class SharedCredentials:
    """The credentials of a profile in a file of the AWS command line, which is read again from time to time."""

    def __init__(self, path: Path, profile: str) -> None:
        """Raises ValueError if the file has no such credentials."""
        self._path, self._profile = path, profile
        self()

    def __call__(self) -> S3Credential:
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(self._path.read_text())
            section = parser[self._profile]
            key_id, secret = section["aws_access_key_id"], section["aws_secret_access_key"]
        except (OSError, configparser.Error, KeyError, UnicodeDecodeError):
            # The parser's own messages quote lines of the file.
            raise ValueError(
                f"{self._path} has no aws_access_key_id and aws_secret_access_key in the profile {self._profile!r}"
            ) from None
        return {
            "access_key_id": key_id,
            "secret_access_key": secret,
            "token": section.get("aws_session_token"),
            "expires_at": datetime.now(UTC) + timedelta(seconds=CREDENTIALS_SECONDS),
        }
