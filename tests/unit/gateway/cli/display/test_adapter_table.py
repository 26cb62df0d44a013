"""Which models take which adapters."""

from __future__ import annotations

from dgx_music.generation.v1.generation_pb2 import Model, ModelAdapter
from gateway.cli.display.adapter_table import adapter_rows


def test_adapter_has_the_models_that_take_it_or_a_reason() -> None:
    small = Model(
        name="small",
        adapters=[
            ModelAdapter(name="jazz"),
            ModelAdapter(name="large", problem="too wide"),
            ModelAdapter(name="odd", problem="pickle [bold]"),
        ],
    )
    medium = Model(name="medium", adapters=[ModelAdapter(name="large"), ModelAdapter(name="odd", problem="other")])
    copy = Model(name="copy", adapters=[ModelAdapter(name="jazz")])
    assert adapter_rows([small, medium, copy, Model(name="sketch")]) == [
        ("jazz", "small, copy", ""),
        ("large", "medium", ""),
        ("odd", "", "pickle \\[bold]"),
    ]
    assert adapter_rows([Model(name="sketch")]) == []
