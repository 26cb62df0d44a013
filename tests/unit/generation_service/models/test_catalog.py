"""The models there are, by name."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from dgx_music.errors import FailedPrecondition, InvalidArgument, NotFound
from generation_service.models.base import Model, ModelInfo
from generation_service.models.catalog import BuiltInModel, ModelCatalog
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


async def test_first_model_is_the_default_and_listed_first():
    catalog = catalog_of("middle", "last", "first")
    assert catalog.default_name == "middle"
    assert catalog.names == ("middle", "first", "last")
    assert catalog.get("").name == (await catalog.describe("")).name == "middle"


def test_configured_default_is_listed_first():
    assert catalog_of("a", "b", default_name="b").names == ("b", "a")


def test_unknown_default_error_names_the_setting():
    with pytest.raises(InvalidArgument, match="DGX_MUSIC_DEFAULT_MODEL: there is no model 'c'; available models: a, b"):
        catalog_of("a", "b", default_name="c")


async def test_unknown_model_error_lists_the_available_ones():
    catalog = catalog_of("one", "two")
    with pytest.raises(NotFound, match="there is no model 'three'; available models: one, two"):
        await catalog.describe("three")
    with pytest.raises(
        InvalidArgument, match="model_name: there is no model 'three'; available models: one, two"
    ) as refused:
        await catalog.describe("three", field="model_name")
    assert refused.value.reason == "MODEL_NOT_FOUND"


async def test_installable_model_error_says_how_to_install_it():
    catalog = ModelCatalog(lambda: [ToneModel("one").entry], installable={"two"})
    for field_name in (None, "model_name"):
        with pytest.raises(
            FailedPrecondition, match=r"'two' is not installed; run `dgx-music models pull two`$"
        ) as refused:
            await catalog.describe("two", field=field_name)
        assert refused.value.reason == "MODEL_NOT_INSTALLED"


async def test_newly_installed_model_is_found():
    found = [ToneModel("one").entry]
    catalog = ModelCatalog(lambda: found)
    found.insert(0, ToneModel("two").entry)
    assert (await catalog.describe("two")).name == "two"
    assert catalog.names == ("two", "one")
    del found[0]
    assert await catalog.refresh_names() == ("one",)


def test_first_of_two_models_with_the_same_name_is_used():
    first, second = ToneModel("one"), ToneModel("one")
    assert ModelCatalog(lambda: [first.entry, second.entry]).get("one").load() is first


async def test_description_is_cached_until_the_files_change():
    found = [Slow("one", 1)]
    catalog = ModelCatalog(lambda: found)
    assert (await catalog.describe("one")).version == (await catalog.describe("one")).version == "1"
    assert found[0].reads == [1]
    found[0] = Slow("one", 2)
    await catalog.refresh_names()
    assert (await catalog.describe("one")).version == "2"


async def test_unreadable_model_is_listed_and_read_again():
    broken = Slow("broken", -1)
    catalog = ModelCatalog(lambda: [ToneModel("sound").entry, broken])
    assert catalog.names == ("sound", "broken")
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match="truncated"):
            await catalog.describe("broken")
    assert len(broken.reads) == 2
    assert (await catalog.describe("sound")).name == "sound"


async def test_built_in_model_is_built_on_load():
    model = ToneModel("one")
    entry = BuiltInModel(model.info, model.load)
    assert entry.load() is model
