"""The choice among implementations: on made-up times, with implementations that fail in every way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor  # noqa: E402

from generation_service.models.execution import KernelChoice  # noqa: E402
from generation_service.models.musicgen.kernels import kernel_selection  # noqa: E402
from generation_service.models.musicgen.kernels.kernel_selection import (  # noqa: E402
    Call,
    Candidate,
    choose_kernel,
    time_on_cuda,
)
from tests.support.cuda_calls import CudaCalls  # noqa: E402

ALL = ("triton", "triton_pdl", "torch")
X = torch.randn(128, 8, generator=torch.Generator().manual_seed(1))


def candidate(name: str, times: Sequence[float], run: Callable[[Tensor], Tensor] = torch.exp) -> Candidate:
    """An implementation that takes the given microseconds for 2, 16 and 128 rows."""

    def prepare(rows: int) -> list[Call]:
        def call() -> Tensor:
            return run(X[:rows])

        call.microseconds = times[(2, 16, 128).index(rows)]  # type: ignore[attr-defined]
        return [call]

    return Candidate(name, prepare)


def made_up_timer(calls: Sequence[Call]) -> float:
    return calls[0].microseconds  # type: ignore[attr-defined,no-any-return]


def choose(*candidates: Candidate) -> KernelChoice:
    return choose_kernel("exp", candidates, made_up_timer, tolerance=0.01)


REFERENCE = candidate("torch", (10, 10, 10))


def rounds_differently(x: Tensor) -> Tensor:
    return torch.exp(x) * (1 + 1e-6)


def test_the_preferred_one_is_chosen_unless_another_is_clearly_faster() -> None:
    def triton(*times: float) -> Candidate:
        return candidate("triton", times, rounds_differently)

    assert choose(triton(3, 5, 9), REFERENCE) == KernelChoice("exp", "triton", {"triton": 3, "torch": 10}, "")
    assert choose(triton(12, 12, 12), REFERENCE).implementation == "triton", "may be noise"
    assert choose(triton(13, 13, 13), REFERENCE).implementation == "torch"


def test_of_two_with_the_same_results_the_faster_one_is_chosen() -> None:
    first = candidate("first", (5, 5, 5), rounds_differently)
    for time, chosen in ((4.9, "second"), (5.1, "first")):
        second = candidate("second", (time, time, time), rounds_differently)
        assert choose(first, second, REFERENCE).implementation == chosen


def test_a_single_request_counts_as_much_as_all_others_together() -> None:
    first = candidate("first", (10, 10, 10), rounds_differently)
    assert choose(first, candidate("second", (4, 11, 11)), REFERENCE).implementation == "second"  # (0.4 + 1.1) / 2
    assert choose(first, candidate("second", (6, 11, 11)), REFERENCE).implementation == "first"  # (0.6 + 1.1) / 2


def raises(x: Tensor) -> Tensor:
    raise RuntimeError("no kernel image is available\nfor execution on the device")


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (raises, "triton: RuntimeError: no kernel image is available"),
        (lambda x: x.exp() * 1.1, "triton: off by 0.1 of the result for 2 rows; at most 0.01 is tolerated"),
        (lambda x: x.exp() / 0, "triton: off by inf of the result for 2 rows; at most 0.01 is tolerated"),
        (lambda x: x.exp() * float("nan"), "triton: off by nan of the result for 2 rows; at most 0.01 is tolerated"),
        (
            lambda x: x.exp() * (1 + 1e-6 * (len(x) == 2)),
            "triton: the result of a row is another for 2 rows than for 128",
        ),
    ],
)
def test_what_fails_is_left_out_with_its_reason(run: Callable[[Tensor], Tensor], reason: str) -> None:
    choice = choose(candidate("triton", (1, 1, 1), run), REFERENCE)
    assert choice == KernelChoice("exp", "torch", {"torch": 10}, reason)


def test_what_cannot_be_measured_is_left_out() -> None:
    def timer(calls: Sequence[Call]) -> float:
        if made_up_timer(calls) == 1:
            raise RuntimeError("operation not permitted when stream is capturing")
        return made_up_timer(calls)

    choice = choose_kernel("exp", [candidate("triton", (1, 1, 1)), REFERENCE], timer, tolerance=0.01)
    assert choice.implementation == "torch"
    assert choice.reason == "triton: RuntimeError: operation not permitted when stream is capturing"


def test_an_error_of_the_reference_is_raised() -> None:
    with pytest.raises(RuntimeError, match="no kernel image"):
        choose(candidate("triton", (1, 1, 1)), candidate("torch", (10, 10, 10), raises))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_time_on_a_gpu_grows_with_the_work() -> None:
    weights = [torch.zeros(4096, 4096, device="cuda") for _ in range(4)]
    x = torch.zeros(2, 4096, device="cuda")
    small = time_on_cuda([lambda weight=weight: x @ weight[:, :64] for weight in weights])  # type: ignore[misc]
    large = time_on_cuda([lambda weight=weight: x @ weight for weight in weights])  # type: ignore[misc]
    assert 0 < small < large


def test_all_timings_use_one_stream_for_which_the_first_call_is_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = CudaCalls(monkeypatch)
    kernel_selection._timing_stream.cache_clear()

    def call() -> Tensor:
        cuda.calls.append(("call", cuda.current))
        return X

    try:
        assert kernel_selection.time_on_cuda([call, call]) == 1000
        kernel_selection.time_on_cuda([call])
        own = kernel_selection._timing_stream()
    finally:
        kernel_selection._timing_stream.cache_clear()
    assert cuda.current == "default"
    assert cuda.calls == [
        ("create", 0),
        *[("wait for", "default"), ("call", own), ("capture", own, "thread_local"), ("call", own), ("call", own)],
        *[("wait for", "default"), ("call", own), ("capture", own, "thread_local"), ("call", own)],
    ]


@pytest.mark.parametrize(
    ("capability", "expected"), [((8, 9), ["triton", "torch"]), ((9, 0), list(ALL)), ((12, 1), list(ALL))]
)
def test_early_launches_are_not_tried_on_a_gpu_that_has_none(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert kernel_selection.usable_implementations(ALL, torch.device("cuda")) == expected
    assert kernel_selection.usable_implementations(ALL, torch.device("cpu")) == list(ALL)
