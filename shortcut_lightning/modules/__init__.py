"""LightningModules: what learns, and how one step goes."""

from shortcut_lightning.modules.anti_personalization import AntiPersonalization
from shortcut_lightning.modules.cat import CAT
from shortcut_lightning.modules.concept_classifier import ConceptClassifierTraining
from shortcut_lightning.modules.dreambooth import DreamBooth
from shortcut_lightning.modules.esd import ErasedStableDiffusion
from shortcut_lightning.modules.forget_me_not import ForgetMeNot
from shortcut_lightning.modules.geometry_erasure import GeometryErasure
from shortcut_lightning.modules.uce import UnifiedConceptEditing

__all__ = [
    "CAT",
    "AntiPersonalization",
    "ConceptClassifierTraining",
    "DreamBooth",
    "ErasedStableDiffusion",
    "ForgetMeNot",
    "GeometryErasure",
    "UnifiedConceptEditing",
]
