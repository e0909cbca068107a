"""The scores an audit takes when none are named."""

from shortcut_lightning.membership.base import Score
from shortcut_lightning.membership.clid import CLiDThreshold, CLiDTrees
from shortcut_lightning.membership.gradients import GradientMasking, NoiseOptimization
from shortcut_lightning.membership.loss import Loss, LossProfile, MonteCarlo
from shortcut_lightning.membership.pfami import PFAMI
from shortcut_lightning.membership.pia import PIA, SimA
from shortcut_lightning.membership.secmi import SecMI


def default_scores() -> dict[str, Score]:
    """CLiD in its forms and the grey-box baselines it is compared with; CLiD's forms share their
    queries, and Loss and Monte-Carlo are among them too."""
    return {
        "CLiD_th": CLiDThreshold(),
        "CLiD_th log-ratio": CLiDThreshold(discrepancy="log_ratio"),
        "CLiD_vec": CLiDTrees(),
        "Loss": Loss(),
        "Monte-Carlo": MonteCarlo(),
        "SecMI": SecMI(),
        "PIA": PIA(),
        "PIAN": PIA(normalize=True),
        "PFAMI": PFAMI(),
        "SimA": SimA(),
    }


def loss_profile() -> tuple[str, LossProfile]:
    """CDI's losses from picture to noise, and the name they are measured under."""
    return "CDI losses", LossProfile()


def dataset_scores(gradients: bool = False) -> dict[str, Score]:
    """CDI's features; CLiD's columns join them from `default_scores`. With `gradients` also its two
    features from gradients of the latent, which cost more than all others together."""
    scores: dict[str, Score] = {
        "CDI loss": Loss(timestep=100, draws=5),
        **dict([loss_profile()]),
        "CDI SecMI": SecMI(t_sec=110),  # 0 -> 100 -> 110 -> 100
        "CDI PIA": PIA(p=5.0),
        "CDI PIAN": PIA(p=5.0, normalize=True),
    }
    if gradients:
        scores |= {"CDI masking": GradientMasking(), "CDI noise": NoiseOptimization()}
    return scores
