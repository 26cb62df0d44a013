"""Results that arrive while later steps run."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor  # noqa: E402

from generation_service.models.musicgen.resident.step_pipeline import StepPipeline  # noqa: E402
from tests.support.generator_runs import LateEvent  # noqa: E402

CPU = torch.device("cpu")


class ControlledEvent(LateEvent):
    """An event that the test lets pass."""

    def __init__(self, source: Tensor, target: Tensor) -> None:
        super().__init__(source, target)
        self.has_passed = False

    def query(self) -> bool:
        if self.has_passed:
            self.synchronize()
        return self.has_passed


@pytest.fixture
def events() -> list[ControlledEvent]:
    return []


@pytest.fixture
def pipeline(events: list[ControlledEvent]) -> StepPipeline[str]:
    def copy(source: Tensor, target: Tensor) -> ControlledEvent:
        events.append(ControlledEvent(source, target))
        return events[-1]

    return StepPipeline(3, 2, CPU, copy)


def test_results_are_returned_once_the_device_has_them(
    pipeline: StepPipeline[str], events: list[ControlledEvent]
) -> None:
    results = torch.tensor([[1, 2], [3, 4]])
    pipeline.push("first", results)
    results += 10  # What the next step does.
    assert pipeline.pop(wait=False) == []
    events[0].has_passed = True
    ((rows, values),) = pipeline.pop(wait=False)
    assert (rows, values.tolist()) == ("first", [[1, 2], [3, 4]])
    assert pipeline.pop(wait=True) == []


def test_full_pipeline_waits_for_its_first_step_only(pipeline: StepPipeline[str]) -> None:
    pipeline.push("first", torch.tensor([[1, 2]]))
    assert not pipeline.is_full
    pipeline.push("second", torch.tensor([[3, 4]]))
    assert pipeline.is_full
    assert [(rows, values.tolist()) for rows, values in pipeline.pop(wait=False)] == [("first", [[1, 2]])]
    pipeline.push("third", torch.tensor([[5, 6]]))
    assert [(rows, values.tolist()) for rows, values in pipeline.pop(wait=True)] == [("second", [[3, 4]])]
    assert [(rows, values.tolist()) for rows, values in pipeline.pop(wait=True)] == [("third", [[5, 6]])]


def test_steps_return_in_their_order(pipeline: StepPipeline[str], events: list[ControlledEvent]) -> None:
    pipeline.push("first", torch.tensor([[1, 2]]))
    pipeline.push("second", torch.tensor([[3, 4]]))
    for event in events:
        event.has_passed = True
    finished = [(rows, values.tolist()) for rows, values in pipeline.pop(wait=False)]
    assert finished == [("first", [[1, 2]]), ("second", [[3, 4]])]
