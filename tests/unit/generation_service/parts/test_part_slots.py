"""How many callers are served with parts at once."""

import pytest

from dgx_music.errors import ResourceExhausted
from generation_service.parts.part_slots import PartSlots


def test_a_place_is_free_again_after_an_error() -> None:
    slots = PartSlots(1)
    with pytest.raises(KeyError), slots.take():
        raise KeyError
    with slots.take(), pytest.raises(ResourceExhausted) as caught, slots.take():
        pass
    assert caught.value.retry_after_seconds
