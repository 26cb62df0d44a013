"""Programs in Python, which are compiled and read back."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from google.protobuf import json_format

from dgx_music.client.generation_options import build_request
from dgx_music.storage.v1.storage_pb2 import CreateGenerationRequest
from gateway.studio.repeating.python_program import python_program
from gateway.studio.repeating.repeat_request import GatewayAccess

PROMPT = "it's \"quoted\" \\n\n'''$HOME''' 猫🎹 " + "long " * 60


def request(**fields: Any) -> CreateGenerationRequest:
    plain = {"prompt": PROMPT, "modelName": "sketch", "seed": "7", "durationSeconds": 0.5}
    return json_format.ParseDict(plain | fields, CreateGenerationRequest())


def arguments_of(program: str) -> tuple[list[Any], dict[str, Any]]:
    """Returns those of the call of `generate`."""
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "generate":
            return [ast.literal_eval(one) for one in node.args], {
                str(one.arg): ast.literal_eval(one.value) for one in node.keywords
            }
    raise AssertionError(program)


def test_options_say_all_of_the_request() -> None:
    wanted = request(
        sampling={"topK": 0, "guidanceScale": 0},
        conditioning={
            "sections": [{"startSeconds": 0, "endSeconds": 0.25, "prompt": "a 'b'"}],
            "furtherPrompts": [{"prompt": "x", "weight": 0.5}],
            "adapters": [{"name": "lofi", "scale": 0.8}],
        },
        output={"format": "FILE_FORMAT_FLAC_16", "targetLufs": -20, "ceilingDbtp": 0},
    )
    program = python_program(wanted, GatewayAccess("unix:/it's"))
    [prompt], options = arguments_of(program)
    built = build_request(prompt, options)  # type: ignore[arg-type]
    built.request_id = ""
    assert built == wanted
    assert 'with Client("unix:/it\'s") as client:' in program
    assert max(map(len, program.splitlines())) <= 110


@pytest.mark.parametrize(
    "fields",
    [
        {"edit": {"sourceId": "a", "kind": "EDIT_KIND_EXTEND_LEFT", "addedSeconds": 1}},
        {"conditioning": {"promptWeight": 2}},
        {"output": {"tagPrompt": True}},
    ],
)
def test_what_has_no_option_is_sent_as_a_message(fields: dict[str, Any]) -> None:
    wanted = request(**fields)
    program = python_program(wanted, GatewayAccess(""))
    [assigned] = [
        node
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and getattr(node.targets[0], "id", "") == "REQUEST"
    ]
    assert json_format.ParseDict(ast.literal_eval(assigned.value), CreateGenerationRequest()) == wanted
    assert "with Client() as client:" in program
