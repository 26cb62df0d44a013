"""The models there are, by name."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from dgx_music.errors import FailedPrecondition, InvalidArgument, NotFound
from generation_service.models.base import Model, ModelInfo
from generation_service.models.catalog import KnownModel, ModelCatalog
from tests.support.tone_model import ToneModel


def catalog_of(*names: str, default_name: str | None = None) -> ModelCatalog:
    return ModelCatalog(lambda: [ToneModel(name).entry for name in names], default_name)


@dataclass(frozen=True)
class Slow:
    """A model that has to be read to be known."""

    name: str
    stamp: int
    reads: list[int] = field(default_factory=list, compare=False)

    def describe(self) -> ModelInfo:
        self.reads.append(self.stamp)
        if self.stamp < 0:
            raise FailedPrecondition("truncated", reason="CHECKPOINT_INVALID")
        return ModelInfo(self.name, str(self.stamp), "", "", 8000, 1, 1.0, False)

    def load(self) -> Model:
        raise NotImplementedError


async def test_the_first_is_the_default_and_stands_first():
    catalog = catalog_of("middle", "last", "first")
    assert catalog.default_name == "middle"
    assert catalog.names == ("middle", "first", "last")
    assert catalog.get("").name == (await catalog.describe("")).name == "middle"


def test_the_default_can_be_set():
    assert catalog_of("a", "b", default_name="b").names == ("b", "a")


def test_a_default_that_is_not_there_is_refused_by_the_name_of_its_setting():
    with pytest.raises(InvalidArgument, match="DGX_MUSIC_DEFAULT_MODEL: there is no model 'c'; there are: a, b"):
        catalog_of("a", "b", default_name="c")


async def test_an_unknown_model_names_those_there_are():
    catalog = catalog_of("one", "two")
    with pytest.raises(NotFound, match="there is no model 'three'; there are: one, two"):
        await catalog.describe("three")
    with pytest.raises(InvalidArgument, match="model_name: there is no model 'three'; there are: one, two") as refused:
        await catalog.describe("three", field="model_name")
    assert refused.value.reason == "MODEL_NOT_FOUND"


async def test_one_that_could_be_installed_says_how():
    catalog = ModelCatalog(lambda: [ToneModel("one").entry], installable={"two"})
    for field_name in (None, "model_name"):
        with pytest.raises(FailedPrecondition, match=r"'two' is not installed; dgx-music models pull two$") as refused:
            await catalog.describe("two", field=field_name)
        assert refused.value.reason == "MODEL_NOT_INSTALLED"


async def test_a_model_that_was_installed_meanwhile_is_found():
    found = [ToneModel("one").entry]
    catalog = ModelCatalog(lambda: found)
    found.insert(0, ToneModel("two").entry)
    assert (await catalog.describe("two")).name == "two"
    assert catalog.names == ("two", "one")
    del found[0]
    assert await catalog.refreshed_names() == ("one",)


def test_of_two_of_the_same_name_the_first_is_taken():
    first, second = ToneModel("one"), ToneModel("one")
    assert ModelCatalog(lambda: [first.entry, second.entry]).get("one").load() is first


async def test_a_model_is_read_once_until_its_files_change():
    found = [Slow("one", 1)]
    catalog = ModelCatalog(lambda: found)
    assert (await catalog.describe("one")).version == (await catalog.describe("one")).version == "1"
    assert found[0].reads == [1]
    found[0] = Slow("one", 2)
    await catalog.refreshed_names()
    assert (await catalog.describe("one")).version == "2"


async def test_a_model_that_cannot_be_read_is_in_the_list_and_tried_again():
    broken = Slow("broken", -1)
    catalog = ModelCatalog(lambda: [ToneModel("sound").entry, broken])
    assert catalog.names == ("sound", "broken")
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match="truncated"):
            await catalog.describe("broken")
    assert len(broken.reads) == 2
    assert (await catalog.describe("sound")).name == "sound"


async def test_a_known_model_is_just_made():
    model = ToneModel("one")
    entry = KnownModel(model.info, model.load)
    assert entry.load() is model
