"""The one learning-rate schedule of all pocket recipes."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warm_flat_fall(optimizer: Optimizer, total: int, warm: int = 60, fall: float = 0.4) -> LambdaLR:
    """Linear warm-up over `warm` steps, then flat, then linear to zero over the last share `fall`.

    The fall is worth a tenth of the denoising loss on its own, so no recipe does without it.
    """

    def factor(step: int) -> float:
        left = (total - step) / max(1.0, fall * total)
        return max(0.0, min(1.0, (step + 1) / warm, left))

    return LambdaLR(optimizer, factor)
