"""What happens at a moment of a run. Each name is loaded when first asked for, so that a command
which needs none of them starts fast."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shortcut_lightning.callbacks.concept_ratio import ConceptRatio
    from shortcut_lightning.callbacks.ema import EMA
    from shortcut_lightning.callbacks.evaluation import Evaluation, EvaluationCallback
    from shortcut_lightning.callbacks.export import Export
    from shortcut_lightning.callbacks.external_quality import ClipIqa, PaperQuality, PyiqaQuality
    from shortcut_lightning.callbacks.extraction import ConceptExtraction
    from shortcut_lightning.callbacks.face_identity import FaceIdentity
    from shortcut_lightning.callbacks.fidelity import StageFidelity
    from shortcut_lightning.callbacks.measures import ClipAlignment, FrechetDistance, IdentityMatch
    from shortcut_lightning.callbacks.membership import Membership
    from shortcut_lightning.callbacks.misalignment import Misalignment
    from shortcut_lightning.callbacks.quality import PaperScores, Quality
    from shortcut_lightning.callbacks.report import ReportWriter
    from shortcut_lightning.callbacks.sample_grid import SampleGrid
    from shortcut_lightning.callbacks.save_images import SaveImages
    from shortcut_lightning.callbacks.stages import Stages
    from shortcut_lightning.callbacks.texture import HighFrequency, TextureLevel
    from shortcut_lightning.callbacks.throughput import Throughput
    from shortcut_lightning.callbacks.token_probe import TokenProbe

__all__ = [
    "EMA",
    "ClipAlignment",
    "ClipIqa",
    "ConceptExtraction",
    "ConceptRatio",
    "Evaluation",
    "EvaluationCallback",
    "Export",
    "FaceIdentity",
    "FrechetDistance",
    "HighFrequency",
    "IdentityMatch",
    "Membership",
    "Misalignment",
    "PaperQuality",
    "PaperScores",
    "PyiqaQuality",
    "Quality",
    "ReportWriter",
    "SampleGrid",
    "SaveImages",
    "StageFidelity",
    "Stages",
    "TextureLevel",
    "Throughput",
    "TokenProbe",
]

_FILES = {
    "Quality": "quality",
    "PaperScores": "quality",
    "HighFrequency": "texture",
    "TextureLevel": "texture",
    "Membership": "membership",
    "Misalignment": "misalignment",
    "StageFidelity": "fidelity",
    "ConceptExtraction": "extraction",
    "ClipIqa": "external_quality",
    "PaperQuality": "external_quality",
    "PyiqaQuality": "external_quality",
    "FaceIdentity": "face_identity",
    "EMA": "ema",
    "Export": "export",
    "ClipAlignment": "measures",
    "ConceptRatio": "concept_ratio",
    "FrechetDistance": "measures",
    "IdentityMatch": "measures",
    "Evaluation": "evaluation",
    "EvaluationCallback": "evaluation",
    "ReportWriter": "report",
    "SampleGrid": "sample_grid",
    "SaveImages": "save_images",
    "Stages": "stages",
    "Throughput": "throughput",
    "TokenProbe": "token_probe",
}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
