"""Gradient-boosted trees as a rule."""

import numpy as np

from shortcut_lightning.membership.base import Rule


def boosted_trees(members: np.ndarray, holdouts: np.ndarray, seed: int, *, trees: int = 20) -> Rule:
    """Trees of CLiD_vec's shape, fitted to features (N, F); the rule is the log-odds of "member".

    CLiD's reference uses XGBoost: depth 3, learning rate 0.3, 0.7 of rows and columns per tree, and
    penalties gamma 0.7, L1 1, L2 1. scikit-learn's classic boosting has the first four by name
    (columns are drawn per split instead of per tree) and no penalties; a smallest leaf of 2 % of
    the rows takes their place.
    """
    from sklearn.ensemble import GradientBoostingClassifier

    model = GradientBoostingClassifier(
        n_estimators=trees,
        max_depth=3,
        learning_rate=0.3,
        subsample=0.7,
        max_features=0.7,
        min_samples_leaf=0.02,
        random_state=seed,
    )
    rows = np.concatenate([members, holdouts])
    model.fit(rows, np.repeat([1, 0], [len(members), len(holdouts)]))
    return lambda features: model.decision_function(features)
