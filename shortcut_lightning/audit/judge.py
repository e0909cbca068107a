"""What an audit asks of its models: scores, caption controls, the ladder, the set as a whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from shortcut_lightning.audit import controls, default_scores
from shortcut_lightning.audit.blind import FOLDS, Blind
from shortcut_lightning.audit.dataset_inference import DatasetTest, dataset_test
from shortcut_lightning.audit.evaluator import Features, evaluate
from shortcut_lightning.audit.ladder import DecidedSet, climb, decided_set
from shortcut_lightning.audit.path_curve import (
    LATENTS,
    PathCurve,
    columns,
    path_curve,
    shares_of,
)
from shortcut_lightning.audit.result import Judged
from shortcut_lightning.audit.sets import Sets
from shortcut_lightning.membership.base import Rule, Score
from shortcut_lightning.membership.clid import CLiD
from shortcut_lightning.membership.engine import Engine
from shortcut_lightning.membership.loss import LossProfile
from shortcut_lightning.membership.pictures import Picture
from shortcut_lightning.membership.roc import auc, null_error

LEAST = 10  # images of each set for the test of the whole


@dataclass(frozen=True)
class Judge:
    """Asks the engine's models about the sets."""

    engine: Engine
    sets: Sets
    seed: int
    fprs: Sequence[float]
    resamples: int

    @property
    def tuning(self) -> str:
        """Role of the model that everything is tuned on: "target" where there is no shadow."""
        return "shadow" if "shadow" in self.engine.models else "target"

    @property
    def tuned_on(self) -> str:
        """The same in words."""
        return "the shadow model" if self.tuning == "shadow" else "a separate half of the images"

    def reserves(
        self, name: str, head: Judged, blind: Sequence[Blind], wants_blind: bool
    ) -> list[str]:
        """Sentences about what was not looked at, and about the numbers of the headline score.

        Args:
            name: Of the headline score.
            head: What came of it.
            blind: The baselines without a model that were run.
            wants_blind: Whether they were asked for.
        """
        said = list(self.engine.models["target"].backbone.remarks)
        if not wants_blind:
            said.append("Baselines without a model were turned off (audit.controls.blind).")
        elif not blind:
            said.append(
                f"Baselines without a model were not run: they need {FOLDS} images of each set, "
                f"and {head.plain.n_members} members and {head.plain.n_holdouts} non-members are "
                "judged (audit.members, audit.nonmembers)."
            )
        if "base" not in self.engine.models:
            said.append(
                "No base model (audit.base): whether a model that cannot know the members tells "
                "them apart as well was not checked."
            )
        if self.tuning == "target":
            said.append(
                "No shadow model (audit.shadow): half of the images was used for tuning and is "
                "not judged; thresholds come from the audited model itself."
            )
        return said + [f"{name}: {note}" for note in head.plain.notes]

    def scores(self, scores: Mapping[str, Score]) -> dict[str, Judged]:
        """Every image once, in front of all models that need it; then each score's worth."""
        needed: dict[str, tuple[Picture, set[str]]] = {}
        base = {"base"} & set(self.engine.models)
        sets = self.sets
        for pictures, role in (
            (sets.members + sets.holdouts, "target"),
            (sets.shadow_members + sets.shadow_holdouts, self.tuning),
        ):
            for each in pictures:
                needed.setdefault(each.row, (each, set()))[1].update({role} | base)
        groups: dict[tuple[str, ...], list[Picture]] = {}
        for picture, roles in needed.values():
            groups.setdefault(tuple(r for r in self.engine.models if r in roles), []).append(
                picture
            )
        for who, pictures in groups.items():
            self.engine.measure(pictures, scores, who)
        return {name: self._judged(name, score) for name, score in scores.items()}

    def captions(self, name: str, head: Judged, fixed: str) -> list[controls.CaptionControl]:
        """The headline score with captions that are not the images' own."""
        changed = controls.other_captions(*self.sets[:2], fixed, self.seed)
        assert head.score is not None  # this audit has measured it
        found = []
        for control, (members, holdouts) in changed.items():
            self.engine.measure([*members, *holdouts], {name: head.score}, ["target"])
            sample = self._features(name, "target", members, holdouts).scored(head.rule)
            error = null_error(len(members), len(holdouts))
            meaning = controls.CAPTION_CONTROLS[control]
            found.append(controls.CaptionControl(control, meaning, auc(*sample), error))
        return found

    def ladder(self, error: float) -> DecidedSet:
        """CLiD with as many queries as each image needs."""
        sets = self.sets
        judged = [*sets.members, *sets.holdouts]
        shadow = sets.shadow_members, sets.shadow_holdouts
        decided = climb(self.engine, judged, *shadow, error=error, shadow=self.tuning)
        return decided_set(decided, len(sets.members))

    def dataset(
        self, scores: Mapping[str, Score], permutations: int, gradients: bool
    ) -> dict[str, DatasetTest]:
        """The test with CDI's features, and with CLiD's columns added where they were measured; on
        the base model too, where there is one."""
        members, holdouts = self.sets[:2]
        if min(len(members), len(holdouts)) < LEAST:
            return {}

        own = default_scores.dataset_scores(gradients)
        asked = {**scores, **own}

        def tables(names: Sequence[str], role: str) -> tuple[np.ndarray, np.ndarray]:
            measured = [self._features(name, role, members, holdouts) for name in names]
            scored = [(asked[n], rows) for n, rows in zip(names, measured, strict=True)]
            inside = np.concatenate([s.oriented(rows.members) for s, rows in scored], 1)
            return inside, np.concatenate([s.oriented(rows.holdouts) for s, rows in scored], 1)

        roles = [role for role in ("target", "base") if role in self.engine.models]
        self.engine.measure([*members, *holdouts], own, roles)
        clid = next((name for name, score in scores.items() if isinstance(score, CLiD)), None)
        choices = {"CDI": [*own]} | ({"CDI with CLiD": [*own, clid]} if clid else {})
        return {
            title: dataset_test(
                *tables(names, "target"),
                base=tables(names, "base") if "base" in roles else None,
                permutations=permutations,
                seed=self.seed,
            )
            for title, names in choices.items()
        }

    def path(self) -> PathCurve | None:
        """AUC of the loss over the noise level, from the losses that `dataset` asks for; None where
        there are too few pictures for that test."""
        members, holdouts = self.sets[:2]
        if min(len(members), len(holdouts)) < LEAST:
            return None
        name, profile = default_scores.loss_profile()
        roles = [role for role in ("target", "base") if role in self.engine.models]
        self.engine.measure([*members, *holdouts], {name: profile}, roles)
        target, *base = (columns(self._features(name, role, members, holdouts)) for role in roles)
        return path_curve(
            profile.timesteps,
            self._shares(profile),
            target,
            base[0] if base else None,
            self._latents(holdouts[:LATENTS]),
        )

    def _shares(self, profile: LossProfile) -> list[float]:
        backbone = self.engine.models["target"].backbone
        own = [backbone.path.translated(step) for step in profile.timesteps]
        return shares_of(*backbone.signal_and_sigma(torch.tensor(own)))

    def _latents(self, pictures: Sequence[Picture]) -> torch.Tensor:
        model = self.engine.models["target"]
        size = self.engine.batch_size
        with torch.no_grad():
            means = [
                model.encode(
                    torch.stack([each.pixels() for each in pictures[start : start + size]]).to(
                        model.device
                    )
                ).mean.cpu()
                for start in range(0, len(pictures), size)
            ]
        return torch.cat(means)

    def _judged(self, name: str, score: Score) -> Judged:
        def fit(members: np.ndarray, holdouts: np.ndarray) -> Rule:
            return score.fit(members, holdouts, self.seed)

        judged, tuned = self.sets[:2], self.sets[2:]
        target = self._features(name, "target", *judged)
        shadow = self._features(name, self.tuning, *tuned)
        rule = fit(*shadow)
        options = {
            "fprs": self.fprs,
            "resamples": self.resamples,
            "seed": self.seed,
            "refit": score.refits_in_bootstrap,
            "has_shadow": self.tuning == "shadow",
        }
        plain = evaluate(fit, shadow, target, **options)  # type: ignore[arg-type]
        base = calibrated = None
        if "base" in self.engine.models:
            unknowing = self._features(name, "base", *judged)
            base = controls.gate(
                unknowing.scored(rule), target.scored(rule), self.resamples, self.seed
            )
            if score.subtractable:
                before = self._features(name, "base", *tuned)
                shifted = [
                    Features(*(score.calibrated(*rows) for rows in zip(*both, strict=True)))
                    for both in ((shadow, before), (target, unknowing))
                ]
                calibrated = evaluate(fit, *shifted, **options)  # type: ignore[arg-type]
        return Judged(score, rule, target.scored(rule), plain, calibrated, base)

    def _features(
        self, name: str, role: str, members: Sequence[Picture], holdouts: Sequence[Picture]
    ) -> Features:
        rows = self.engine.rows(name, role)
        return Features(*(np.stack([rows[p.row] for p in s]) for s in (members, holdouts)))
