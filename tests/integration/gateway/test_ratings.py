"""Rating generations through the gateway and on the command line."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import grpc.aio
import pytest

from dgx_music.error_status import read_error_details
from dgx_music.storage.v1 import storage_pb2 as storage
from gateway.cli.commands import history, inspect
from gateway.cli.display.console import Console
from tests.support.command_line import InProcessShell
from tests.support.embedded_services import EmbeddedServices
from tests.support.library_files import completed
from tests.support.printed_output import Captured, printed, session_for

SECONDS = 60.0


async def test_gateway_rates_and_filters(library_services: EmbeddedServices) -> None:
    one, other = [await completed(library_services) for _ in range(2)]
    request = storage.RateGenerationRequest(id=one.id, rating=4)
    one.rating = 4
    assert (await library_services.music.RateGeneration(request, timeout=SECONDS)).generation == one
    listed = await library_services.music.ListGenerations(storage.ListGenerationsRequest(min_rating=4), timeout=SECONDS)
    assert list(listed.generations) == [one]
    for generation_id, rating, code, field in (
        (other.id, 6, grpc.StatusCode.INVALID_ARGUMENT, ["rating"]),
        (str(uuid.uuid4()), 5, grpc.StatusCode.NOT_FOUND, []),
    ):
        request = storage.RateGenerationRequest(id=generation_id, rating=rating)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await library_services.music.RateGeneration(request, timeout=SECONDS)
        assert raised.value.code() is code
        assert list(read_error_details(raised.value).violations) == field


async def test_rating_is_printed(library_services: EmbeddedServices, tmp_path: Path, capsys: Captured) -> None:
    session, console = session_for(library_services, tmp_path), Console()
    one, other = [await completed(library_services) for _ in range(2)]
    capsys.readouterr()
    assert await inspect.rate(session, console, one.id, 5) == 0
    assert capsys.readouterr().err.endswith(f"rated generation {one.id} 5/5\n")

    async def listed(min_rating: int) -> list[str]:
        request = storage.ListGenerationsRequest(min_rating=min_rating)
        await history.history(session, console, request, limit=9, ids_only=False)
        return printed(capsys).splitlines()

    title, *rows = await listed(0)
    at = title.index("rating")
    assert [(row.split()[0], row[at : at + 6].strip()) for row in rows] == [(other.id, ""), (one.id, "5/5")]
    assert [row.split()[0] for row in (await listed(5))[1:]] == [one.id]
    await inspect.show(session, console, one.id, png=None)
    assert re.search("^rating +5/5 *$", printed(capsys), re.MULTILINE)

    assert await inspect.rate(session, Console(as_json=True), one.id, 0) == 0
    assert '"rating"' not in printed(capsys)
    await inspect.rate(session, console, one.id, 0)
    assert capsys.readouterr().err.endswith(f"removed the rating of generation {one.id}\n")
    assert (await listed(1))[1:] == []


@pytest.mark.parametrize("rating", ["6", "", "-0", "four", "4.5", " 4"])
def test_bad_rating_is_rejected_before_anything_starts(shell: InProcessShell, rating: str) -> None:
    error = shell.error("rate", "--", str(uuid.uuid4()), rating, status=2)
    assert f"RATING: must be 1 to 5, or none to remove it, not {rating!r}" in error
    assert not shell.data_dir.exists()


def test_rating_on_command_line(shell: InProcessShell) -> None:
    [made] = shell.generations("generate", "techno", "-d", "0.2")
    for rating, stored in (("5", 5), ("none", 0), ("3", 3), ("0", 0), ("1", 1)):
        [rated] = shell.generations("rate", made.id, rating)
        assert rated.rating == stored
    assert [one.id for one in shell.generations("history", "--min-rating", "1")] == [made.id]
    assert shell.generations("history", "--min-rating", "2") == []
    assert "--min-rating" in shell.error("history", "--min-rating", "6", status=2)
    assert "ID" in shell.error("rate", "x", "5", status=2)
    assert "there is no generation" in shell.error("rate", str(uuid.uuid4()), "5", status=1)
