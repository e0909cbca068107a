"""Was this collection used? One answer for a set, where single images are undecided.

CDI (arXiv 2411.12858): a classifier learns, on some folds, what tells suspects from images of the
same distribution that were surely not used, and is judged on the others. If nothing was learned
from the suspects, there is nothing to find. CLiD's columns are among the features here.

The classifier finds any difference, also one that membership does not make. So the direction of the
features is told beside it, and what the same test finds on a model that cannot know the suspects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shortcut_lightning.membership.roc import auc

FOLDS = 5
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class DatasetTest:
    """The test and what surrounds it."""

    n: int  # images of each set
    p_value: float  # the sets can be told apart, whichever way they differ
    direction: float  # of the mean feature, in deviations; above 0 where suspects look like members
    p_base: float | None  # the same test on a model that cannot know them
    auc: float  # mean over folds
    auc_per_fold: list[float]
    p_welch_ref: float  # two-sided, on pooled held-out scores; too optimistic, for comparison
    direction_ref: float  # suspects' mean score minus the others'
    p_null: float  # the same test between two halves of the unpublished; nothing should be found
    curve: list[tuple[int, float]]  # images per set -> p, the median of several draws
    permutations: int

    @property
    def sentence(self) -> str:
        """What p, direction and the base model say together."""
        found = f"p = {self.p_value:.3f}"
        if self.p_value > SIGNIFICANT:
            return f"The collection as a whole is not told from the others ({found})."
        start = f"The collection as a whole is told from the others ({found}, whichever way), "
        moved = f"its features lie {self.direction:+.2f} deviations off"
        if self.direction <= 0:
            return f"{start}but {moved}, opposite to members: this is no sign of membership."
        start += f"and {moved}, as those of members would"
        if self.p_base is None:
            return f"{start}. No base model was asked: the difference may lie in the pictures."
        base = f"p = {self.p_base:.3f} on a model that cannot know the collection"
        if self.p_base <= SIGNIFICANT:
            return f"{start}; but {base}: the difference may lie in the pictures."
        return f"{start}; {base}."


def dataset_test(
    suspects: np.ndarray,
    unpublished: np.ndarray,
    *,
    base: tuple[np.ndarray, np.ndarray] | None = None,
    permutations: int = 499,
    sizes: Sequence[int] = (10, 20, 40, 70, 100, 200, 500, 1000),
    draws: int = 15,
    seed: int = 0,
) -> DatasetTest:
    """Tests (N, F) features of suspects against those of images that were not used, every column
    high for members. `base` holds both on a model that cannot know the suspects.

    The larger set is cut down at random. Membership labels are permuted and the whole
    cross-validation repeated, since scores of one classifier are not independent and a t-test on
    them promises too much.

    Raises ValueError with fewer than two images per fold.
    """
    n = min(len(suspects), len(unpublished))
    if n < 2 * FOLDS:
        raise ValueError(
            f"The dataset test needs {2 * FOLDS} images of each set; there are {len(suspects)} "
            f"suspects and {len(unpublished)} others (audit.members, audit.nonmembers)."
        )
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(len(rows))[:n] for rows in (suspects, unpublished)]
    p, u = suspects[chosen[0]], unpublished[chosen[1]]
    scores, values = _held_out(p, u, seed)
    halves = u[: n // 2], u[n // 2 : 2 * (n // 2)]
    enough = n // 2 >= 2 * FOLDS
    p_base = None
    if base:
        same = [rows[some] for rows, some in zip(base, chosen, strict=True)]
        own = np.random.default_rng(seed)  # the other numbers are the same with and without a base
        p_base = _permutation_p(same[0], same[1], permutations, own, seed)
    from scipy.stats import ttest_ind

    return DatasetTest(
        n=n,
        p_value=_permutation_p(p, u, permutations, rng, seed),
        direction=_direction(p, u),
        p_base=p_base,
        auc=float(np.mean(values)),
        auc_per_fold=values,
        p_welch_ref=float(ttest_ind(scores[:n], scores[n:], equal_var=False).pvalue),
        direction_ref=float(scores[:n].mean() - scores[n:].mean()),
        p_null=_permutation_p(*halves, min(permutations, 199), rng, seed) if enough else np.nan,
        curve=_curve(p, u, [size for size in sizes if 2 * FOLDS <= size < n], draws, rng, seed),
        permutations=permutations,
    )


def _direction(p: np.ndarray, u: np.ndarray) -> float:
    """Mean over features of the suspects' mean minus the others', in pooled deviations."""
    std = np.sqrt((p.var(0) + u.var(0)) / 2)
    return float(((p.mean(0) - u.mean(0)) / np.where(std > 0, std, 1.0)).mean())


def _held_out(p: np.ndarray, u: np.ndarray, seed: int) -> tuple[np.ndarray, list[float]]:
    """Held-out log-odds of being a suspect, (2n,), and the AUC of each fold.

    The same positions of both sets are held out together.
    """
    scores, values = np.empty(2 * len(p)), []
    order = np.random.default_rng(seed).permutation(len(p))
    for test in np.array_split(order, FOLDS):
        train = np.setdiff1d(order, test)
        rows = np.concatenate([p[train], u[train]])
        mean, std = rows.mean(0), rows.std(0)
        scale = np.where(std > 0, std, 1.0)
        weights = logistic((rows - mean) / scale, np.repeat([1.0, 0.0], len(train)))
        inside, outside = (_odds((x[test] - mean) / scale, weights) for x in (p, u))
        scores[test], scores[len(p) + test] = inside, outside
        values.append(auc(inside, outside))
    return scores, values


def logistic(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(F + 1,) weights and intercept of a logistic regression with scikit-learn's default penalty.

    Newton's method; the permutation test fits thousands of these, where the library's set-up would
    take nine tenths of the time.
    """
    rows = np.concatenate([features, np.ones((len(features), 1))], 1)
    penalty = np.append(np.ones(features.shape[1]), 1e-9)
    weights = np.zeros(rows.shape[1])
    for _ in range(30):
        share = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        slope = rows.T @ (share - labels) + penalty * weights
        curvature = (rows * (share * (1 - share))[:, None]).T @ rows + np.diag(penalty)
        step = np.linalg.solve(curvature, slope)
        weights -= step
        if np.abs(step).max() < 1e-6:
            break
    return weights


def _odds(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return features @ weights[:-1] + weights[-1]


def _permutation_p(
    p: np.ndarray, u: np.ndarray, permutations: int, rng: np.random.Generator, seed: int
) -> float:
    """Share of relabellings whose fold-wise AUC is at least as large, the true one included."""
    rows = np.concatenate([p, u])
    observed = np.mean(_held_out(p, u, seed)[1])
    as_large = 1
    for _ in range(permutations):
        order = rng.permutation(len(rows))
        relabelled = rows[order[: len(p)]], rows[order[len(p) :]]
        as_large += int(np.mean(_held_out(*relabelled, seed)[1]) >= observed)
    return as_large / (permutations + 1)


def _curve(
    p: np.ndarray,
    u: np.ndarray,
    sizes: Sequence[int],
    draws: int,
    rng: np.random.Generator,
    seed: int,
) -> list[tuple[int, float]]:
    """Median p over random subsets of each size, by a quick test: one-sided Mann-Whitney on the
    held-out scores of the subset. It shows the trend; the test itself is the permutation."""
    from scipy.stats import mannwhitneyu

    curve = []
    for size in sizes:
        found = []
        for _ in range(draws):
            first, second = (x[rng.permutation(len(x))[:size]] for x in (p, u))
            scores, _ = _held_out(first, second, seed)
            inside, outside = scores[:size], scores[size:]
            found.append(mannwhitneyu(inside, outside, alternative="greater").pvalue)
        curve.append((int(size), float(np.median(found))))
    return curve
