"""The scores an audit takes when none are named."""

from shortcut_lightning.membership.base import Score
from shortcut_lightning.membership.clid import CLiDThreshold, CLiDTrees
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


def dataset_scores() -> dict[str, Score]:
    """CDI's grey-box features; CLiD's columns join them from `default_scores`. Its two features
    from gradients, masking and noise optimisation, are not among them."""
    return {
        "CDI loss": Loss(timestep=100, draws=5),
        "CDI losses": LossProfile(),
        "CDI SecMI": SecMI(),
        "CDI PIA": PIA(p=5.0),
        "CDI PIAN": PIA(p=5.0, normalize=True),
    }
