"""The attributes of objects, with the largest values that they can have."""

import dataclasses
import enum
import types
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import soundfile

from export_service.library.inventory import FileKind
from export_service.library.mastered_file import MasteredFile
from export_service.library.renders import MASTERED_FILE_JSON
from export_service.objects.library_objects import (
    DESCRIPTION,
    MAX_ATTRIBUTE_BYTES,
    MAX_REASON_CHARACTERS,
    Upload,
    describe_render,
)
from export_service.objects.object_keys import ObjectKey
from export_service.retagging.tag_edit import COVER, TEXT_FIELDS

TEXTS = {"file_sha256": "0" * 64, "reason": "x" * 2 * MAX_REASON_CHARACTERS, "own_tags": (*TEXT_FIELDS, COVER)}
"""The largest texts. A new one has to be added here, with its limit."""
UUID = "00000000-0000-4000-8000-000000000000"


def largest(type_: Any, name: str = "") -> Any:
    """The value of a type whose JSON is the longest."""
    if name in TEXTS:
        return TEXTS[name]
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Annotated:
        return largest(arguments[0])
    if origin in (Union, types.UnionType):
        return largest(next(one for one in arguments if one is not type(None)))
    if origin is tuple:
        return tuple(arguments[0])
    if dataclasses.is_dataclass(type_):
        hints = get_type_hints(type_, include_extras=True)
        return type_(**{field.name: largest(hints[field.name], field.name) for field in dataclasses.fields(type_)})
    if issubclass(type_, enum.Enum):
        return max(type_, key=lambda one: len(one.value))
    return {int: 2**63 - 1, float: -1.2345678901234568e-300}[type_]


def test_the_largest_description_fits(tmp_path):
    path = tmp_path / "render.aiff"
    soundfile.write(path, np.zeros((10, 2)), 192000, format="AIFF", subtype="PCM_24")
    file = largest(MasteredFile)
    upload = Upload.prepare(ObjectKey(FileKind.RENDER, UUID, 2**31, UUID, ".aiff"), path, describe_render(file))
    assert "format" in upload.attributes
    user = {name: value for name, value in upload.attributes.items() if not name.startswith("Content-")}
    spare = 50  # The length of the file in this test has fewer digits than it could have.
    assert sum(len(name) + len(value) for name, value in user.items()) + spare < MAX_ATTRIBUTE_BYTES
    read = MASTERED_FILE_JSON.validate_json(upload.attributes[DESCRIPTION])
    assert read.normalization.reason == "x" * MAX_REASON_CHARACTERS
    assert (read.marks, read.own_tags, read.source) == (file.marks, file.own_tags, file.source)
