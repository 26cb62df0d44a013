"""The configuration of a LoRA adapter: PEFT's `adapter_config.json`.

Only plain LoRA, W + scaling · B A, is supported. A setting that would compute anything else is rejected by name: to
ignore it would yield other music than the adapter was trained for. Source: PEFT 0.21, `tuners/lora/config.py`.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.adapters.installed_adapters import CONFIG_FILE

MAX_CONFIG_BYTES = 1 << 20
MAX_RANK = 1024
MAX_ALPHA = 1e6
MAX_EXPRESSION_CHARACTERS, MAX_REPETITIONS = 1000, 4
"""Of a regular expression. PEFT's own have one or two repetitions; matching takes time to the power of their number."""

_INITIALIZATIONS = (None, True, False, "gaussian", "orthogonal", "eva")
"""Those that leave the weights of the model as they are. PiSSA, OLoRA, LoftQ, CorDA and LoRA-GA change them."""
_UNSUPPORTED = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "fan_in_fan_out",
    "modules_to_save",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """How to read and to scale the tensors of an adapter."""

    rank: int
    alpha: float
    uses_rslora: bool
    rank_pattern: Mapping[str, int]
    """Regular expression for the end of a module's path → its rank."""
    alpha_pattern: Mapping[str, float]
    target_modules: str | tuple[str, ...]
    """A regular expression for whole paths, "all-linear", or the ends of paths."""
    base_model: str
    """The model that the adapter was trained for, as PEFT recorded it; may be empty."""

    def is_target(self, module: str) -> bool:
        """Whether the adapter was trained for a module, given by its path in the model."""
        if isinstance(self.target_modules, str):
            return self.target_modules == "all-linear" or bool(re.fullmatch(self.target_modules, module))
        return any(module == end or module.endswith(f".{end}") for end in self.target_modules)

    def rank_of(self, module: str) -> int:
        return int(_match(self.rank_pattern, module, self.rank))

    def scaling_of(self, module: str) -> float:
        """What B A is multiplied by: alpha / rank, or for rsLoRA (Kalajdzievski 2023) alpha / √rank."""
        rank, alpha = self.rank_of(module), _match(self.alpha_pattern, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.uses_rslora else rank)


def invalid_adapter(path: Path, problem: str) -> FailedPrecondition:
    """The error for an adapter's file that can't be used; `problem` says what is wrong with it."""
    return FailedPrecondition(f"{path}: {problem}", reason="ADAPTER_INVALID", metadata={"file": str(path)})


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Raises FailedPrecondition if the file is missing, damaged, or describes anything but a plain LoRA adapter."""
    path = folder / CONFIG_FILE
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise invalid_adapter(
            path, f"can't be read ({error.strerror}); expected an adapter as PEFT saves it"
        ) from error
    if len(text) > MAX_CONFIG_BYTES:
        raise invalid_adapter(path, "is larger than 1 MiB; expected the configuration of a LoRA adapter")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid_adapter(path, f"is not valid JSON ({error})") from error
    if not isinstance(fields, dict):
        raise invalid_adapter(path, "is not a JSON object")
    return _parse(fields, path)


def _parse(fields: dict[str, Any], path: Path) -> AdapterConfig:
    if fields.get("peft_type") != "LORA":
        raise invalid_adapter(path, f"peft_type is {reprlib.repr(fields.get('peft_type'))}; only 'LORA' is supported")
    for name in _UNSUPPORTED:
        if fields.get(name):
            raise invalid_adapter(
                path, f"{name} is {reprlib.repr(fields[name])}, which is not supported; only plain LoRA is"
            )
    if (bias := fields.get("bias", "none")) != "none":
        raise invalid_adapter(
            path, f"bias is {reprlib.repr(bias)}, but the language model has no biases; only 'none' is supported"
        )
    if (initialization := fields.get("init_lora_weights", True)) not in _INITIALIZATIONS:
        raise invalid_adapter(
            path,
            f"init_lora_weights is {reprlib.repr(initialization)}, which changes the model's own weights; save the "
            "adapter with PEFT's path_initial_model_for_weight_conversion",
        )
    return AdapterConfig(
        rank=_rank(fields.get("r"), "r", path),
        alpha=_number(fields.get("lora_alpha", 8), "lora_alpha", path),
        uses_rslora=bool(fields.get("use_rslora")),
        rank_pattern=_pattern(fields, "rank_pattern", _rank, path),
        alpha_pattern=_pattern(fields, "alpha_pattern", _number, path),
        target_modules=_target_modules(fields.get("target_modules"), path),
        base_model=str(fields.get("base_model_name_or_path") or ""),
    )


def _rank(value: object, name: str, path: Path) -> int:
    if type(value) is not int or not 1 <= value <= MAX_RANK:
        raise invalid_adapter(path, f"{name} is {reprlib.repr(value)}; expected an integer from 1 to {MAX_RANK}")
    return value


def _number(value: object, name: str, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_ALPHA:
        raise invalid_adapter(path, f"{name} is {reprlib.repr(value)}; expected a number")
    return float(value)


def _pattern(fields: Mapping[str, Any], name: str, parse: Any, path: Path) -> dict[str, Any]:
    pattern = fields.get(name) or {}
    if not isinstance(pattern, dict):
        raise invalid_adapter(path, f"{name} is {reprlib.repr(pattern)}; expected an object")
    for key in pattern:
        _check_expression(key, name, path)
    return {key: parse(value, f"{name}[{reprlib.repr(key)}]", path) for key, value in pattern.items()}


def _target_modules(value: object, path: Path) -> str | tuple[str, ...]:
    if isinstance(value, str) and value:
        _check_expression(value, "target_modules", path)
        return value
    if isinstance(value, Sequence) and value and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise invalid_adapter(path, f"target_modules is {reprlib.repr(value)}; expected names or a regular expression")


def _check_expression(text: str, name: str, path: Path) -> None:
    try:
        re.compile(_at_the_end(text))
    except (re.error, OverflowError, RecursionError) as error:
        problem = f"{name} has {text[:200]!r}, which is not a regular expression ({error})"
        raise invalid_adapter(path, problem) from error
    plain = re.sub(r"\\.|\[[^\]]*\]", "x", text)
    is_slow = re.search(r"\)[*+{]", plain) or len(re.findall(r"[*+{]", plain)) > MAX_REPETITIONS
    if is_slow or len(text) > MAX_EXPRESSION_CHARACTERS:
        problem = f"{name} has {text[:200]!r}, which could take forever to match; repeat no groups in it, or list names"
        raise invalid_adapter(path, problem)


def _at_the_end(expression: str) -> str:
    return rf"(.*\.)?({expression})$"


def _match(pattern: Mapping[str, float], module: str, default: float) -> float:
    """As PEFT's `get_pattern_key`: the first expression that matches the end of the path."""
    return next((value for key, value in pattern.items() if re.match(_at_the_end(key), module)), default)
