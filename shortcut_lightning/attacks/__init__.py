"""Perturbations that protect images from being learned; `base.py` says what all of them promise."""

from shortcut_lightning.attacks.base import Attack, NoAttack
from shortcut_lightning.attacks.photoguard import PhotoGuardEncoder
from shortcut_lightning.attacks.random_noise import RandomNoise

__all__ = ["Attack", "NoAttack", "PhotoGuardEncoder", "RandomNoise"]
