"""Which models can do what a request needs."""

from __future__ import annotations

import pytest

from dgx_music.errors import InvalidArgument
from dgx_music.generation.v1.generation_pb2 import CAPABILITY_MELODY, CAPABILITY_STYLE, Model
from gateway.rpc.capability_support import require_capability
from service_runtime.capabilities import Capability

MODELS = (
    Model(name="plain", is_default=True),
    Model(name="sings", capabilities=[CAPABILITY_MELODY]),
    Model(name="hums", capabilities=[CAPABILITY_STYLE, CAPABILITY_MELODY]),
    Model(name="broken", problem="no weights"),
)


@pytest.mark.parametrize("name", ["sings", "hums", "unknown", "broken"])
def test_capable_model_passes_and_what_other_checks_report(name: str) -> None:
    require_capability(name, Capability.MELODY, "conditioning.melody", MODELS)


@pytest.mark.parametrize("name", ["plain", ""])
def test_other_model_is_refused_with_those_that_can(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"model 'plain' can't follow a melody; models that can: sings, hums$"):
        require_capability(name, Capability.MELODY, "conditioning.melody", MODELS)
