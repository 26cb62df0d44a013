"""docs/clients.md has a valid request for each method of the public API."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

from dgx_music.gateway.v1 import gateway_pb2
from tests.support.page_commands import page_commands

PAGE = Path(__file__).parents[2] / "docs/clients.md"
METHODS = gateway_pb2.DESCRIPTOR.services_by_name["MusicService"].methods_by_name
COMMANDS = {command.method: command for command in page_commands(PAGE)}


def test_page_has_a_command_for_each_method_and_no_other() -> None:
    assert set(COMMANDS) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_request_has_only_fields_of_the_contract(name: str) -> None:
    json_format.Parse(COMMANDS[name].request, GetMessageClass(METHODS[name].input_type)())
