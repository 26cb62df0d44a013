"""The models there are."""

from __future__ import annotations

import pytest

from generation_service.registry import ModelCatalog, installed_models
from service_runtime.errors import InvalidArgument
from tests.unit.generation.tone_model import ToneModel


def test_the_first_is_the_default_and_stands_first():
    catalog = ModelCatalog([ToneModel(name).entry for name in ("middle", "last", "first")])
    assert catalog.default_name == "middle"
    assert catalog.names == ("middle", "first", "last")
    assert catalog.get("").info.name == "middle"


def test_the_default_can_be_set():
    catalog = ModelCatalog([ToneModel("a").entry, ToneModel("b").entry], "b")
    assert catalog.names == ("b", "a")


def test_a_default_that_is_not_there_is_refused_by_the_name_of_its_setting():
    with pytest.raises(InvalidArgument, match="DGX_MUSIC_DEFAULT_MODEL: there is no model 'c'; there are: a, b"):
        ModelCatalog([ToneModel("a").entry, ToneModel("b").entry], "c")


def test_the_sketch_is_always_there():
    catalog = installed_models()
    assert catalog.default_name == "sketch"
    assert catalog.get("sketch").load().info.is_synthesiser
