"""Comparisons through the gateway and on the command line."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import grpc.aio
import pytest

from dgx_music.error_status import read_error_details
from dgx_music.storage.v1 import storage_pb2 as storage
from gateway.cli.commands.comparisons import comparisons
from gateway.cli.display.console import Console
from tests.support.embedded_services import EmbeddedServices
from tests.support.library_files import completed
from tests.support.printed_output import Captured, printed, session_for

SECONDS = 60.0


async def test_comparisons_are_saved_and_printed(
    library_services: EmbeddedServices, tmp_path: Path, capsys: Captured
) -> None:
    session, console = session_for(library_services, tmp_path), Console()
    assert await comparisons(session, console, "", limit=9) == 0
    assert "no ranking has been saved" in capsys.readouterr().err
    first, second, third = [(await completed(library_services)).id for _ in range(3)]
    request = storage.CreateComparisonRequest(
        generation_ids=[second, third, first], blind=True, request_id=str(uuid.uuid4())
    )
    saved = (await library_services.music.CreateComparison(request, timeout=SECONDS)).comparison
    assert (await library_services.music.CreateComparison(request, timeout=SECONDS)).comparison == saved
    pair = storage.CreateComparisonRequest(generation_ids=[first, third])
    other = (await library_services.music.CreateComparison(pair, timeout=SECONDS)).comparison
    capsys.readouterr()

    async def rows(generation_id: str = "", limit: int = 9) -> list[tuple[str, str]]:
        await comparisons(session, console, generation_id, limit=limit)
        title, *lines = printed(capsys).splitlines()
        place, blind = title.index("place"), title.index("blind")
        return [(line[place:].split()[1], line[blind : blind + 5].strip()) for line in lines]

    ranked = [(second, "blind"), (third, ""), (first, "")]
    assert await rows() == [(first, ""), (third, ""), *ranked]
    assert await rows(second.upper()) == ranked
    await comparisons(session, console, "", limit=1)
    output = capsys.readouterr()
    assert second not in output.out
    assert "--limit 10" in output.err

    await comparisons(session, Console(as_json=True), "", limit=9)
    lines = [json.loads(line) for line in printed(capsys).splitlines()]
    assert [line["id"] for line in lines] == [other.id, saved.id]
    await library_services.music.DeleteGeneration(storage.DeleteGenerationRequest(id=third), timeout=SECONDS)
    assert await rows() == [(second, "blind"), (first, "")]

    invalid = storage.CreateComparisonRequest(generation_ids=[first, first.upper()])
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await library_services.music.CreateComparison(invalid, timeout=SECONDS)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(read_error_details(raised.value).violations) == ["generation_ids[1]"]
