"""The catalog of models by name."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from dgx_music.errors import FailedPrecondition, InvalidArgument, NotFound
from generation_service.models.base import AdapterUse, Model, ModelInfo
from generation_service.models.catalog import BuiltInModel, ModelCatalog
from tests.support.tone_model import ToneModel


def build_catalog(*names: str, default_name: str | None = None) -> ModelCatalog:
    return ModelCatalog(lambda: [ToneModel(name).entry for name in names], default_name)


@dataclass(frozen=True)
class FileModel:
    """A model whose files must be read to describe it. A negative stamp means that they are invalid."""

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

    def adapter_problems(self) -> dict[str, str]:
        return {"jazz": "", "large": "its tensors have other shapes"}


async def test_first_model_is_the_default_and_listed_first():
    catalog = build_catalog("middle", "last", "first")
    assert catalog.default_name == "middle"
    assert catalog.names == ("middle", "first", "last")
    assert catalog.get("").name == (await catalog.describe("")).name == "middle"


def test_configured_default_is_listed_first():
    assert build_catalog("a", "b", default_name="b").names == ("b", "a")


def test_unknown_default_error_names_the_setting():
    with pytest.raises(InvalidArgument, match="DGX_MUSIC_DEFAULT_MODEL: there is no model 'c'; available models: a, b"):
        build_catalog("a", "b", default_name="c")


async def test_unknown_model_error_lists_the_available_ones():
    catalog = build_catalog("one", "two")
    with pytest.raises(NotFound, match="there is no model 'three'; available models: one, two"):
        await catalog.describe("three")
    with pytest.raises(
        InvalidArgument, match="model_name: there is no model 'three'; available models: one, two"
    ) as caught:
        await catalog.describe("three", field="model_name")
    assert caught.value.reason == "MODEL_NOT_FOUND"


async def test_installable_model_error_says_how_to_install_it():
    catalog = ModelCatalog(lambda: [ToneModel("one").entry], installable={"two"})
    for field_name in (None, "model_name"):
        with pytest.raises(
            FailedPrecondition, match=r"'two' is not installed; run `dgx-music models pull two`$"
        ) as caught:
            await catalog.describe("two", field=field_name)
        assert caught.value.reason == "MODEL_NOT_INSTALLED"


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
    found = [FileModel("one", 1)]
    catalog = ModelCatalog(lambda: found)
    assert (await catalog.describe("one")).version == (await catalog.describe("one")).version == "1"
    assert found[0].reads == [1]
    found[0] = FileModel("one", 2)
    await catalog.refresh_names()
    assert (await catalog.describe("one")).version == "2"


async def test_unreadable_model_is_listed_and_read_again():
    broken = FileModel("broken", -1)
    catalog = ModelCatalog(lambda: [ToneModel("valid").entry, broken])
    assert catalog.names == ("valid", "broken")
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match="truncated"):
            await catalog.describe("broken")
    assert len(broken.reads) == 2
    assert (await catalog.describe("valid")).name == "valid"


async def test_built_in_model_is_built_on_load():
    model = ToneModel("one")
    entry = BuiltInModel(model.info, model.load)
    assert entry.load() is model


@pytest.mark.parametrize(
    ("name", "problem"),
    [("rock", "there is no adapter 'rock'; adapters for model 'a': jazz"), ("large", "its tensors have other shapes")],
)
async def test_adapter_that_a_model_can_not_take_is_an_invalid_field(name: str, problem: str) -> None:
    catalog = ModelCatalog(lambda: [FileModel("a", 1)])
    await catalog.check_adapters("a", [AdapterUse("jazz", 0.5)])
    with pytest.raises(InvalidArgument, match=problem) as caught:
        await catalog.check_adapters("a", [AdapterUse("jazz"), AdapterUse(name)])
    assert caught.value.field == "conditioning.adapters[1].name"


async def test_built_in_model_has_no_adapters() -> None:
    assert await build_catalog("a").adapter_problems("a") == {}
