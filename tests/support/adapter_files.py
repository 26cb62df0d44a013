"""Writes LoRA adapters with given tensors in PEFT's layout, for what PEFT itself would not write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

FC1 = "base_model.model.decoder.model.decoder.layers.0.fc1"
"""What PEFT puts before the factors of a module of the first layer, which has 64 inputs and 256 outputs."""


def write_adapter_files(folder: Path, tensors: Mapping[str, Tensor], **settings: Any) -> Path:
    """Writes an adapter for `FC1` with a rank and an alpha of 2; `settings` replace fields of its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["fc1"], **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(dict(tensors), folder / "adapter_model.safetensors")
    return folder
