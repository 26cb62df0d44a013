"""What the settings say about a client's credentials."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgx_music.credentials import Credentials
from dgx_music.errors import FailedPrecondition
from service_runtime.settings import Settings
from tests.support.tls_files import make_tls_files


def test_nothing_is_shown_by_default() -> None:
    assert Settings().credentials() == Credentials()


def test_everything_is_shown(tmp_path: Path) -> None:
    files = make_tls_files(tmp_path)
    settings = Settings(token="dgxm_secret", client_name="laptop", **files.server_settings())
    assert settings.credentials() == files.credentials("server", token="dgxm_secret", client_name="laptop")
    assert settings.service_credentials() == files.credentials("server")
    assert settings.credentials().channel_credentials() is not None


def test_certificate_of_a_server_alone_makes_no_client_use_tls(tmp_path: Path) -> None:
    files = make_tls_files(tmp_path)
    settings = Settings(**files.server_settings()).model_copy(update={"tls_ca": None})
    assert settings.credentials() == Credentials()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"token": "a", "token_file": "/x"}, "DGX_MUSIC_TOKEN and DGX_MUSIC_TOKEN_FILE are both set; set one of them"),
        ({"token": "one\ntwo"}, "DGX_MUSIC_TOKEN: what should be a token is several lines, or has characters"),
        ({"token_file": __file__}, f"DGX_MUSIC_TOKEN_FILE={__file__}: what should be a token is several lines"),
        ({"token_file": "/no/such"}, "DGX_MUSIC_TOKEN_FILE=/no/such: No such file or directory"),
        ({"tls_ca": "/no/such"}, "DGX_MUSIC_TLS_CA=/no/such: the file can't be read: No such file or directory"),
        (
            {"tls_ca": "system", "tls_certificate": "/no"},
            "DGX_MUSIC_TLS_CERTIFICATE is set, but DGX_MUSIC_TLS_KEY is not",
        ),
        (
            {"tls_ca": "system", "tls_certificate": "/dev/null", "tls_key": "/no/such"},
            "DGX_MUSIC_TLS_KEY=/no/such: the file can't be read: No such file or directory",
        ),
    ],
)
def test_unusable_setting_is_named(settings: dict[str, str], says: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        Settings(**settings).credentials()
    assert caught.value.message.startswith(says)
