"""The service token: from the environment or a file, and its replacement."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgx_music.errors import FailedPrecondition
from service_runtime.access.service_token import ServiceToken, service_metadata
from service_runtime.settings import Settings

OLD, NEW = "o" * 32, "n" * 40


def test_only_the_whole_token_matches() -> None:
    token = ServiceToken(Settings(service_token=OLD))
    assert token.matches(OLD)
    for other in ("", OLD[:-1], OLD + "o", NEW, "ü"):
        assert not token.matches(other)


def test_without_a_token_nothing_matches() -> None:
    token = ServiceToken(Settings())
    assert not token.matches("")
    assert token.accepted() == ()
    assert service_metadata(Settings())() == []


def test_token_is_replaced_without_a_gap(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(OLD)
    settings = Settings(service_token_file=file)
    token, metadata = ServiceToken(settings), service_metadata(settings)
    file.write_text(f"{OLD}\n{NEW}\n")
    assert token.matches(OLD)
    assert token.matches(NEW)
    assert metadata() == [("authorization", f"Bearer {OLD}")]
    file.write_text(f"{NEW}\n")
    assert not token.matches(OLD)
    assert metadata() == [("authorization", f"Bearer {NEW}")]


@pytest.mark.parametrize("content", [b"", b"short", f"{NEW}\nshort".encode(), b"\xff" * 40])
def test_content_that_cannot_be_used_replaces_nothing(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(OLD)
    token = ServiceToken(Settings(service_token_file=file))
    file.write_bytes(content)
    assert token.matches(OLD)
    assert not token.matches("short")
    file.write_text(NEW)
    assert token.accepted() == (NEW,)


@pytest.mark.parametrize(
    ("settings", "content", "says"),
    [
        ({"service_token": "short"}, None, "DGX_MUSIC_SERVICE_TOKEN: a service token must have at least 32 characters"),
        ({"service_token": "with a space " * 4}, None, "without spaces"),
        ({"service_token": OLD, "service_token_file": "FILE"}, OLD, "are both set; set one of them"),
        ({"service_token_file": "FILE"}, None, "DGX_MUSIC_SERVICE_TOKEN_FILE=FILE: No such file or directory"),
        ({"service_token_file": "FILE"}, "\n", "DGX_MUSIC_SERVICE_TOKEN_FILE=FILE: the file is empty"),
        ({"service_token_file": "FILE"}, f"{OLD}\nshort", "DGX_MUSIC_SERVICE_TOKEN_FILE=FILE: a service token must"),
    ],
)
def test_unusable_token_names_its_setting_and_not_the_secret(
    settings: dict[str, str], content: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "FILE").write_text(content)
    with pytest.raises(FailedPrecondition) as caught:
        ServiceToken(Settings(**settings))
    assert says in caught.value.message
    assert "short" not in caught.value.message
