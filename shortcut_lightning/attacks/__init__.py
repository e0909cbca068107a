"""Perturbations that protect images from being learned; `base.py` says what all of them promise."""

from shortcut_lightning.attacks.adaptive import Adaptive
from shortcut_lightning.attacks.advdm import AdvDM
from shortcut_lightning.attacks.anti_diffusion import AntiDiffusion
from shortcut_lightning.attacks.antipure import AntiPure
from shortcut_lightning.attacks.aspl import ASPL
from shortcut_lightning.attacks.base import Attack, NoAttack
from shortcut_lightning.attacks.blurguard import BlurGuard
from shortcut_lightning.attacks.caat import CAAT
from shortcut_lightning.attacks.easpl import EASPL
from shortcut_lightning.attacks.fsmg import FSMG
from shortcut_lightning.attacks.glaze import Glaze
from shortcut_lightning.attacks.metacloak import MetaCloak
from shortcut_lightning.attacks.mist import Mist
from shortcut_lightning.attacks.photoguard import PhotoGuardEncoder
from shortcut_lightning.attacks.photoguard_diffusion import PhotoGuardDiffusion
from shortcut_lightning.attacks.random_noise import RandomNoise
from shortcut_lightning.attacks.sds import SDS
from shortcut_lightning.attacks.simac import SimAC
from shortcut_lightning.attacks.soundness import soundness
from shortcut_lightning.attacks.surrogate import SurrogateTraining

__all__ = [
    "ASPL",
    "CAAT",
    "EASPL",
    "FSMG",
    "SDS",
    "Adaptive",
    "AdvDM",
    "AntiDiffusion",
    "AntiPure",
    "Attack",
    "BlurGuard",
    "Glaze",
    "MetaCloak",
    "Mist",
    "NoAttack",
    "PhotoGuardDiffusion",
    "PhotoGuardEncoder",
    "RandomNoise",
    "SimAC",
    "SurrogateTraining",
    "soundness",
]
