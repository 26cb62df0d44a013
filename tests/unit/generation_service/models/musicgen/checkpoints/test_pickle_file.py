# ruff: noqa: E402
"""What a pickle would run is named and never run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.pickle_file import file_digest, map_pickle


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Stand:
    pass


class Known:
    pass


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("is_archive", [True, False])
def test_functions_are_named_and_not_called(tmp_path: Path, protocol: int, is_archive: bool) -> None:
    path, made = tmp_path / "state_dict.bin", tmp_path / "made"
    content = {"a": torch.zeros(1), "calls": [Call(os.mkdir, str(made)), Call(os.rmdir, str(made))]}
    if is_archive:
        torch.save(content, path, pickle_protocol=protocol)
    else:
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(
        FailedPrecondition, match=r"would run (_codecs\.encode, )?posix\.mkdir, posix\.rmdir; only"
    ) as caught:
        map_pickle(path)
    assert caught.value.reason == "CHECKPOINT_UNSAFE"
    assert not made.exists()


def test_class_that_has_a_stand_in_is_not_what_is_wrong(tmp_path: Path) -> None:
    path, name = tmp_path / "checkpoint.th", f"{Known.__module__}.{Known.__name__}"
    torch.save({"a": Known()}, path)
    assert isinstance(map_pickle(path, [(Stand, name)])["a"], Stand)
    torch.save({"a": Known(), "b": Call(os.mkdir, str(tmp_path / "made"))}, path)
    with pytest.raises(FailedPrecondition, match=r"reading it would run posix\.mkdir; only"):
        map_pickle(path, [(Stand, name)])


def test_digest_changes_with_a_tensor(tmp_path: Path) -> None:
    digests = set()
    for value in (0.0, 1.0):
        torch.save({"a": torch.full((4,), value)}, tmp_path / "a.bin")
        digests.add(file_digest(tmp_path / "a.bin"))
    torch.save({"a": torch.full((4,), 1.0)}, tmp_path / "b.bin")
    assert len(digests | {file_digest(tmp_path / "b.bin")}) == 2, "its name is no part of it"
