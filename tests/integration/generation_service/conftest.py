"""Storage, export and generation on a data directory of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.service_stack import House
from tests.support.tone_model import ToneModel


@pytest.fixture
def model() -> ToneModel:
    return ToneModel()


@pytest.fixture
async def house(tmp_path) -> AsyncIterator[House]:
    house = House(tmp_path)
    try:
        yield house
    finally:
        await house.close_all()


@pytest.fixture
async def full_house(house) -> House:
    await house.open("storage", "export", "generation")
    return house
