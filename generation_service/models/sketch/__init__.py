"""The built-in rule-based synthesiser, for machines without model weights."""

from generation_service.models.sketch.synthesizer import Sketch, SketchState

__all__ = ["Sketch", "SketchState"]
