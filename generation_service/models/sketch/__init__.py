"""The built-in synthesiser: music by rule, for machines without model weights."""

from generation_service.models.sketch.synthesizer import Sketch, SketchState

__all__ = ["Sketch", "SketchState"]
