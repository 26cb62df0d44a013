"""What a log line holds, in both formats."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from dgx_music.access.v1 import access_pb2
from dgx_music.export.v1 import export_pb2
from dgx_music.storage.v1 import storage_pb2
from service_runtime.observability.logging import bind_generation_id, get_logger, logging_configuration
from tests.support.log_capture import captured_logs

GENERATION_ID = "20eb5b25-7a3b-4503-883d-1c23c8f770af"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_log_line_carries_context_and_respects_level(log_format: str) -> None:
    with captured_logs(log_format) as log, structlog.contextvars.bound_contextvars(generation_id="g1"):
        get_logger("test").info("event", frames=7)
        get_logger("test").debug("too fine")
        logging.getLogger("library").warning("from a library")
    lines = log.getvalue().splitlines()
    assert len(lines) == 2
    assert all("g1" in line for line in lines)


def test_fields_of_the_process_are_in_every_line_and_a_child_can_log_alike() -> None:
    with captured_logs("json", device="cuda:1") as log:
        get_logger("test").info("event")
        logging.getLogger("library").warning("from a library")
        assert logging_configuration() == ("info", "json")
    assert [json.loads(line)["device"] for line in log.getvalue().splitlines()] == ["cuda:1", "cuda:1"]


@pytest.mark.parametrize(
    ("request_message", "bound"),
    [
        (storage_pb2.GetGenerationRequest(id=GENERATION_ID), {"generation_id": GENERATION_ID}),
        (export_pb2.DeleteFileRequest(generation_id=GENERATION_ID), {"generation_id": GENERATION_ID}),
        (access_pb2.RevokeTokenRequest(id="a1b2c3d4"), {}),
        (storage_pb2.ListPromptsRequest(), {}),
        (iter(()), {}),
    ],
)
def test_lines_of_a_call_carry_the_generation_that_it_names(request_message: object, bound: dict[str, str]) -> None:
    structlog.contextvars.clear_contextvars()
    bind_generation_id(request_message)
    assert structlog.contextvars.get_contextvars() == bound
