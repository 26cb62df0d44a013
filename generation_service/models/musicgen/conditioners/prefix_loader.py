"""Loads the conditioners of melody and style that a checkpoint has."""

from __future__ import annotations

from generation_service.config import DeviceName
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.checkpoints.hub_networks import open_hub_codec
from generation_service.models.musicgen.codec.encodec import Encodec
from generation_service.models.musicgen.codec.encodec_checkpoint import build_encodec
from generation_service.models.musicgen.conditioners.melody_conditioner import MelodyConditioner
from generation_service.models.musicgen.conditioners.melody_separation import MelodySeparator, SeparationUnavailable
from generation_service.models.musicgen.conditioners.mert import Mert
from generation_service.models.musicgen.conditioners.prefix_conditioner import PrefixConditioner
from generation_service.models.musicgen.conditioners.style_conditioner import StyleConditioner
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)


def load_prefix_conditioner(checkpoint: Checkpoint, config: LmConfig, device: DeviceName) -> PrefixConditioner | None:
    """None for a model whose texts cross-attention reads. Raises FailedPrecondition if something is missing."""
    if config.has_cross_attention:
        return None
    melody: MelodyConditioner | None = None
    style: StyleConditioner | None = None
    if config.melody is not None:
        separator: MelodySeparator | None = None
        try:
            separator = MelodySeparator(device)
        except SeparationUnavailable as error:
            log.warning("melody_separation_unavailable", reason=str(error))
        melody = MelodyConditioner(checkpoint, config.melody, config.dim, device, separator)
    if config.style is not None:
        if config.style.feature_model == "mert":
            source: Mert | Encodec = Mert(device)
        else:
            source = build_encodec(open_hub_codec(config.style.encodec_name, checkpoint.path)).to(device)
        style = StyleConditioner(checkpoint, config.style, config.dim, source, device)
    return PrefixConditioner(config, device, melody, style)
