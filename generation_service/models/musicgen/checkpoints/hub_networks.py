"""Text encoders and codecs that a checkpoint only names, found in the Hugging Face cache. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from torch import Tensor

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.checkpoint import (
    StoredNetwork,
    StoredTextEncoder,
    invalid_checkpoint,
    missing_checkpoint,
)
from generation_service.models.musicgen.checkpoints.pickle_file import map_pickle, tensor_headers
from generation_service.models.musicgen.checkpoints.safetensors_file import (
    WEIGHTS_FILE,
    has_safetensors,
    read_json,
    read_safetensors,
)

CONFIG_FILE = "config.json"
PICKLED_WEIGHTS_FILE = "pytorch_model.bin"
_ENCODER = ("encoder.", "shared.")


def open_hub_text_encoder(config: Mapping[str, Any], path: Path) -> StoredTextEncoder:
    """The T5 that a language model's `xp.cfg` names; `path` is the file that has it."""
    conditioners = config.get("conditioners")
    named = [
        str(conditioner["t5"]["name"])
        for conditioner in (conditioners.values() if isinstance(conditioners, Mapping) else ())
        if isinstance(conditioner, Mapping) and conditioner.get("model") == "t5"
    ]
    if len(named) != 1:
        raise invalid_checkpoint(path, f"its configuration has {len(named)} T5 conditioners; expected exactly one")
    name = named[0]
    folder = _cached_folder(name, None)
    if folder is None:
        raise FailedPrecondition(
            f"the text encoder {name!r} is not in the Hugging Face cache; download it with: hf download {name}",
            reason="TEXT_ENCODER_MISSING",
            metadata={"text_encoder": name},
        )
    network = open_transformers_folder(folder, "the configuration of transformers' T5")
    # The files of a whole T5 have its decoder too.
    headers = {key: header for key, header in network.headers.items() if key.startswith(_ENCODER)}
    return StoredTextEncoder(network.path, network.config, headers, network.map_tensors, folder)


def open_hub_codec(name: str, path: Path, cache: Path | None = None) -> StoredNetwork:
    """The EnCodec model that the file `path` names."""
    try:
        folder = _cached_folder(name, cache)
    except HFValidationError:
        problem = f"it names the codec {name!r}; expected the name of an EnCodec model on the Hugging Face hub"
        raise invalid_checkpoint(path, problem) from None
    if folder is None:
        raise missing_checkpoint(
            path,
            f"it uses the pretrained codec {name!r}, which is not in the Hugging Face cache; "
            f"download it with: hf download {name}",
            pretrained=name,
        )
    return open_transformers_folder(folder, "the configuration of transformers' EncodecModel")


def open_transformers_folder(folder: Path, expected: str) -> StoredNetwork:
    """A network that transformers saved: `config.json`, and weights as safetensors or else pickled."""
    config = read_json(folder / CONFIG_FILE, expected)
    pickled = folder / PICKLED_WEIGHTS_FILE
    if has_safetensors(folder):
        files = read_safetensors(folder)
        return StoredNetwork(files.path, config, files.headers, files.map_tensors)
    if not pickled.is_file():
        raise missing_checkpoint(
            folder, f"the folder has {CONFIG_FILE} but neither {WEIGHTS_FILE} nor {PICKLED_WEIGHTS_FILE}"
        )
    return StoredNetwork(pickled, config, tensor_headers(_map_state(pickled), pickled), lambda: _map_state(pickled))


def _map_state(path: Path) -> Mapping[str, Tensor]:
    state = map_pickle(path)
    if not isinstance(state, Mapping):
        raise invalid_checkpoint(path, f"the file contains a {type(state).__name__}; expected a dictionary of weights")
    return state


def _cached_folder(name: str, cache: Path | None) -> Path | None:
    """The folder of a repository in the Hugging Face cache, or None. Raises HFValidationError for no name of one."""
    config = try_to_load_from_cache(name, CONFIG_FILE, cache_dir=cache)
    return Path(config).parent if isinstance(config, str) else None
