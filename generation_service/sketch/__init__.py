"""The built-in synthesiser: music by rule, for machines without model weights."""

from generation_service.sketch.sketch import Sketch, SketchState

__all__ = ["Sketch", "SketchState"]
