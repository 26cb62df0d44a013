"""The delay pattern of the codebooks."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

import numpy as np  # noqa: E402

from generation_service.models.musicgen.delay_pattern import DelayedCodes, delay_sampled_codes  # noqa: E402


def test_delayed_codes_are_realigned_to_frames() -> None:
    codes = DelayedCodes((0, 0, 1, 3), frames=5, empty_code=9)
    assert codes.newest.tolist() == [9, 9, 9, 9]
    for n in range(codes.total_steps):
        codes.append(np.array([n, n + 100, n + 200, n + 300]))
        assert codes.frames_ready == max(0, n - 2)
    assert codes.is_done
    assert codes.newest.tolist() == [9, 9, 9, 307], "there is no code beyond the last frame"
    assert codes.select_frames(1, 5).T.tolist() == [[n, n + 100, n + 201, n + 303] for n in range(1, 5)]


@pytest.mark.parametrize("prompt_frames", [0, 1, 4])
def test_pattern_on_a_device_equals_that_on_the_host(prompt_frames: int) -> None:
    delays, frames, random = (0, 0, 1, 3), 6, np.random.default_rng(0)
    prompt = random.integers(10, 20, (4, prompt_frames))
    codes = DelayedCodes(delays, frames, 99, prompt)
    before = torch.from_numpy(codes.columns.copy())
    while not codes.is_done:
        position = codes.step
        sampled = random.integers(0, 10, 4)
        codes.append(sampled)
        # A second sequence in the batch, of which only the first frame is to be generated.
        columns = delay_sampled_codes(
            torch.from_numpy(sampled).expand(2, -1),
            torch.stack([before[:, position + 1], torch.full((4,), 99)]),
            torch.tensor([position, 0]),
            torch.tensor([prompt_frames, 0]),
            torch.tensor([frames, 1]),
            torch.tensor(delays),
        )
        assert columns[0].tolist() == codes.newest.tolist()
        assert columns[1].tolist() == [*sampled[:2].tolist(), 99, 99]
