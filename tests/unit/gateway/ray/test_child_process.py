"""What the log of a server tells of what is wrong with it."""

from __future__ import annotations

import json

from gateway.ray.child_process import find_error


def test_last_error_of_a_log() -> None:
    error = find_error("error: DGX_MUSIC_DEVICES=x: use auto\n", "")
    assert error == "DGX_MUSIC_DEVICES=x: use auto"
    assert find_error(json.dumps({"event": "model_loaded"}), error) == error
    error = find_error(json.dumps({"event": "not_serving", "error": "storage does not answer"}), error)
    assert error == "storage does not answer"
    assert find_error(json.dumps({"event": "serving"}), error) == error
    assert find_error(json.dumps({"event": "serving_again"}), error) == ""
    assert find_error("[1, 2]\n", "x") == find_error("not JSON\n", "x") == "x"
