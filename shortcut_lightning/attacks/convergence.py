"""Whether an attack was given the time it needs."""

from collections.abc import Sequence
from statistics import fmean, pvariance

FEW_STEPS = 16  # below this many, a trend cannot be told from noise


def convergence(losses: Sequence[float]) -> list[str]:
    """Why an attack with these losses, one a step, may have stopped too early; empty where its last
    quarter differs from the one before by less than two standard errors."""
    if len(losses) < FEW_STEPS:
        return [
            f"{len(losses)} steps are too few to see whether the loss has converged; raise "
            "data.attack.steps."
        ]
    quarter = len(losses) // 4
    before, after = losses[-2 * quarter : -quarter], losses[-quarter:]
    error = ((pvariance(before) + pvariance(after)) / quarter) ** 0.5
    gap = abs(fmean(after) - fmean(before))
    if gap <= 2 * error or gap <= 1e-6 * abs(fmean(before)):
        return []
    return [
        f"the loss still moved in the last quarter of {len(losses)} steps, from "
        f"{fmean(before):.4g} to {fmean(after):.4g}; raise data.attack.steps."
    ]
