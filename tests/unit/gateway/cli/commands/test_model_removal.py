"""Which files a name stands for when a model is removed."""

from __future__ import annotations

import pytest

from gateway.cli.commands.model_removal import find_removable_model
from gateway.cli.session.command_errors import CommandError


def test_an_unknown_name_is_told_where_names_are_listed(tmp_path):
    with pytest.raises(CommandError, match="no model or adapter 'nope' here; list them with `dgx-music models`"):
        find_removable_model("nope", tmp_path)


def test_an_adapter_is_found_by_its_folder(tmp_path):
    folder = tmp_path / "adapters" / "jazz"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    assert find_removable_model("jazz", tmp_path).place == folder
