"""Random requests to all methods of all services, to the HTTP endpoints, the Studio and the MCP server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.http_requests import fuzz_http
from tests.fuzz.mcp_requests import fuzz_mcp
from tests.fuzz.requests import COMMON, SERVICES, fuzz
from tests.fuzz.studio_requests import fuzz_studio
from tests.support.service_processes import service_processes

SEED = 1


@pytest.mark.slow
async def test_a_few_requests_to_every_method(tmp_path: Path) -> None:
    tally, problems = await fuzz(tmp_path / "data", 170, SEED)
    assert not problems, "\n".join(problems)
    methods = {method.full_name for service in (*SERVICES.values(), *COMMON) for method in service.methods}
    assert {path[1:].replace("/", ".") for path, _ in tally.counts} == methods


@pytest.mark.slow
async def test_a_thousand_requests(tmp_path: Path, url: str) -> None:
    _, problems = await fuzz(tmp_path / "data", 1000, SEED + 1, url)
    assert not problems, "\n".join(problems)


@pytest.mark.slow
async def test_studio(tmp_path: Path) -> None:
    async with service_processes(tmp_path / "data") as services:
        statuses, problems = await fuzz_studio(services, 600, SEED)
        assert {200, 400, 404, 409, 413, 415} <= set(statuses)
        assert not problems, "\n".join(problems)


@pytest.mark.slow
async def test_http_and_mcp(tmp_path: Path) -> None:
    async with service_processes(tmp_path / "data") as services:
        statuses, problems = await fuzz_http(services, 200, SEED)
        assert {200, 400, 401, 404, 415} <= set(statuses)
        assert not problems, "\n".join(problems)
        kinds, problems = await fuzz_mcp(services, 200, SEED)
        assert {"result", "tool error"} <= set(kinds)
        assert not problems, "\n".join(problems)
