"""What a model is asked about a picture, to tell whether it was trained on it."""

from shortcut_lightning.membership.base import Score
from shortcut_lightning.membership.clid import CLiD, CLiDThreshold, CLiDTrees
from shortcut_lightning.membership.complexity import ComplexityCalibrated
from shortcut_lightning.membership.engine import Engine
from shortcut_lightning.membership.gradients import GradientMasking, NoiseOptimization
from shortcut_lightning.membership.gsa import GSA
from shortcut_lightning.membership.loss import Loss, LossPeak, LossProfile, MonteCarlo
from shortcut_lightning.membership.pfami import PFAMI, PFAMINN
from shortcut_lightning.membership.pia import PIA, SimA
from shortcut_lightning.membership.pictures import Picture, picture, read_pictures
from shortcut_lightning.membership.rediffuse import ReDiffuse
from shortcut_lightning.membership.reducers import (
    GaussianNoise,
    ImportantWords,
    NullOnly,
    Reducer,
    SimpleClipping,
)
from shortcut_lightning.membership.secmi import SecMI, SecMINNs

__all__ = [
    "GSA",
    "PFAMI",
    "PFAMINN",
    "PIA",
    "CLiD",
    "CLiDThreshold",
    "CLiDTrees",
    "ComplexityCalibrated",
    "Engine",
    "GaussianNoise",
    "GradientMasking",
    "ImportantWords",
    "Loss",
    "LossPeak",
    "LossProfile",
    "MonteCarlo",
    "NoiseOptimization",
    "NullOnly",
    "Picture",
    "ReDiffuse",
    "Reducer",
    "Score",
    "SecMI",
    "SecMINNs",
    "SimA",
    "SimpleClipping",
    "picture",
    "read_pictures",
]
