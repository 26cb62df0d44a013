"""What a client shows, and how names travel."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgx_music.credentials import Credentials, decode_client_name, encode_client_name


@pytest.mark.parametrize("name", ["laptop", "my laptop", "Küche", "100%", "a+b", "音楽室", "x" * 64])
def test_names_arrive_as_they_were_sent_in_ascii(name: str) -> None:
    sent = encode_client_name(name)
    assert sent.isascii()
    assert sent.isprintable()
    assert decode_client_name(sent) == name


@pytest.mark.parametrize(
    ("sent", "name"), [("a%0Ab%1B[31m", "ab[31m"), ("x" * 100, "x" * 64), (" %20 ", ""), ("%ff", "\ufffd")]
)
def test_names_that_clients_make_up(sent: str, name: str) -> None:
    assert decode_client_name(sent) == name


def test_secret_is_not_shown_in_logs() -> None:
    assert "dgxm" not in repr(Credentials(token="dgxm_secret"))


def test_token_comes_from_the_file_unless_it_is_given(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    credentials = Credentials(token_file=str(file), client_name="Küche")
    assert credentials.metadata() == (("authorization", "Bearer one"), ("dgx-music-client", "K%C3%BCche"))
    file.write_text("two more\n")
    assert credentials.metadata()[0] == ("authorization", "Bearer two more")
    file.write_text("\n")
    assert len(credentials.metadata()) == 1
    assert Credentials(token="given", token_file=str(file)).metadata() == (("authorization", "Bearer given"),)


def test_without_an_authority_there_is_no_tls() -> None:
    assert Credentials(certificate="/nonexistent", key="/nonexistent").channel_credentials() is None
    assert Credentials(ca="system").channel_credentials() is not None
    assert Credentials(ca="system").file_versions() == ()
    with pytest.raises(FileNotFoundError):
        Credentials(ca="/nonexistent").channel_credentials()
    assert Credentials(ca="/nonexistent").file_versions() == (None,)
