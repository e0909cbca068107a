"""A whole audit: models and two sets of images in, numbers, controls and one verdict out."""

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import torch

from shortcut_lightning.audit import default_scores, measured
from shortcut_lightning.audit.blind import Blind, blind_baselines
from shortcut_lightning.audit.captioner import Captioner
from shortcut_lightning.audit.judge import Judge
from shortcut_lightning.audit.loading import AuditedModel
from shortcut_lightning.audit.result import AuditResult
from shortcut_lightning.audit.score_files import ScoreFiles, words_of
from shortcut_lightning.audit.sets import read_sets
from shortcut_lightning.audit.settings import Asking, Controls, Statistics
from shortcut_lightning.audit.streamed import judge_streams
from shortcut_lightning.audit.verdict import verdict
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.cluster import InProcess, Pool
from shortcut_lightning.cluster.sources import is_stream
from shortcut_lightning.membership.base import Score
from shortcut_lightning.membership.engine import Engine, settings
from shortcut_lightning.membership.model import Model
from shortcut_lightning.ranges import Ranged, Seed
from shortcut_lightning.report.summary import installed_versions

log = logging.getLogger(__name__)

SCORE_FILES = (
    "member_scores", "nonmember_scores", "base_member_scores", "base_nonmember_scores",
    "shadow_member_scores", "shadow_nonmember_scores",
)  # fmt: skip


class Audit(Ranged):
    """Asks whether a model was trained on the members.

    With a shadow model, trained by the same recipe on images whose membership is known, everything
    is tuned on it. Without one, half of the members and non-members is set aside for tuning and the
    other half is judged.

    Or judges scores of such images that others measured, from files (`member_scores` and
    `nonmember_scores`), without pictures and models.

    Args:
        target: The model under audit.
        members: Folder of images with captions that it is said, or suspected, to have learned; or
            shards, tables or a pattern of files (`cluster/README.md`), as are the other sets.
        nonmembers: Folder of images of the same kind that it has surely not.
        base: The model it was made from, or another that cannot know the members. Without it, a
            difference between the sets cannot be told from membership.
        shadow: A model made like the target from `shadow_members`.
        shadow_members: Folder of the images it learned.
        shadow_nonmembers: Folder of images it did not.
        caption: One sentence for all images, when their captions are unknown.
        captioner: Image-to-text model that describes them instead: a folder or hub id.
        scores: Named scores; empty for CLiD and its grey-box baselines.
        headline: Name of the score the verdict rests on; empty for the first one.
        controls: What is looked at beside the scores, so that a difference is not mistaken for
            membership.
        ladder: Also decide image by image with CLiD at 2, 6, 15 and 45 queries, where an image
            climbs on only while it is undecided.
        dataset: Test the set as a whole (CDI), with its own queries, and draw the curve over the
            noise level from some of them.
        dataset_gradients: Give that test CDI's two features from gradients too; several times
            as slow.
        statistics: Shares, resamples and relabellings.
        features: Folder where measured features are kept, which audits of the same images may
            share; empty for `features/` in the output.
        seed: Of noise, resampling and splits.
        compute: How the models are asked: memory and time.
        member_scores: File of scores of the members, a row per image: text with tabs or commas
            (.txt, .tsv, .csv), .npy, .safetensors or .parquet. One column is judged as one score,
            several also together, as features of the set.
        nonmember_scores: File of the non-members'.
        base_member_scores: The same images in the same order on the base model.
        base_nonmember_scores: The same of the non-members.
        shadow_member_scores: Of images that the shadow model learned, on the shadow model.
        shadow_nonmember_scores: Of images that it did not.
        score_columns: Names of the columns to take; empty for all.
        direction: "high" or "low", whichever members have: one word for all columns, or one for
            each, in order or by name ("loss=low,pia=high"); "clid" for files with CLiD's columns,
            which is taken where their header says so.
    """

    def __init__(
        self,
        target: AuditedModel = AuditedModel(),  # noqa: B008
        members: str = "",
        nonmembers: str = "",
        base: AuditedModel = AuditedModel(),  # noqa: B008
        shadow: AuditedModel = AuditedModel(),  # noqa: B008
        shadow_members: str = "",
        shadow_nonmembers: str = "",
        caption: str = "",
        captioner: str = "",
        scores: dict[str, Score] = {},  # noqa: B006
        headline: str = "",
        controls: Controls = Controls(),  # noqa: B008
        ladder: bool = False,
        dataset: bool = True,
        dataset_gradients: bool = False,
        statistics: Statistics = Statistics(),  # noqa: B008
        features: str = "",
        seed: Seed = 0,
        compute: Asking = Asking(),  # noqa: B008
        member_scores: str = "",
        nonmember_scores: str = "",
        base_member_scores: str = "",
        base_nonmember_scores: str = "",
        shadow_member_scores: str = "",
        shadow_nonmember_scores: str = "",
        score_columns: Sequence[str] | str = (),
        direction: Sequence[str] | str = (),
    ) -> None:
        self.member_scores, self.nonmember_scores = member_scores, nonmember_scores
        self.base_member_scores = base_member_scores
        self.base_nonmember_scores = base_nonmember_scores
        self.shadow_member_scores = shadow_member_scores
        self.shadow_nonmember_scores = shadow_nonmember_scores
        self.score_columns, self.direction = words_of(score_columns), words_of(direction)
        paths = {key: getattr(self, key) for key in SCORE_FILES}
        self.files = ScoreFiles(paths, self.score_columns, self.direction)
        asked = {
            "target": target.given, "members": members, "nonmembers": nonmembers,
            "base": base.given, "shadow": shadow.given, "scores": scores, "caption": caption,
            "captioner": captioner, "ladder": ladder, "dataset_gradients": dataset_gradients,
        }  # fmt: skip
        for key, model in (("target", target), ("base", base), ("shadow", shadow)):
            model.require_name(f"audit.{key}")
        self.files.check([key for key, given in asked.items() if given])
        if not self.files.given and not target.given:
            raise ValueError(
                "audit.target names no model; give a diffusers folder, a run's folder, a hub id or "
                "'pocket' (audit.target.pretrained_model_name_or_path), or scores in files "
                "(audit.member_scores)."
            )
        for key in ("members", "nonmembers"):
            if not self.files.given and not asked[key]:
                raise ValueError(f"audit.{key} is needed: a folder of images with captions.")
        if shadow.given != bool(shadow_members) or shadow.given != bool(shadow_nonmembers):
            raise ValueError(
                "A shadow model comes with both its sets: give all of audit.shadow, "
                "audit.shadow_members and audit.shadow_nonmembers, or none."
            )
        if caption and captioner:
            raise ValueError(
                "audit.caption gives one sentence for all images and audit.captioner describes "
                "each; give one of them."
            )
        self.target, self.base, self.shadow = target, base, shadow
        self.members, self.nonmembers = members, nonmembers
        self.shadow_members, self.shadow_nonmembers = shadow_members, shadow_nonmembers
        self.caption, self.captioner = caption, captioner
        self.scores = dict(scores) or default_scores.default_scores()
        self.headline = headline if self.files.given else headline or next(iter(self.scores))
        if not self.files.given and self.headline not in self.scores:
            raise ValueError(
                f"audit.headline is {self.headline!r}; the scores are {', '.join(self.scores)}."
            )
        self.controls, self.statistics, self.compute = controls, statistics, compute
        self.dataset, self.dataset_gradients, self.ladder = dataset, dataset_gradients, ladder
        self.features, self.seed = features, seed

    def run(
        self,
        folder: Path,
        code: str = "",
        pool: Pool = InProcess(),  # noqa: B008
        max_failures: int = 100,
    ) -> AuditResult:
        """Audits and writes `report.json`, `scores.csv` and `report.html` to `folder`; `code` is
        noted there as the hash of the code that ran. `pool` asks the models. Of sets in shards or
        tables, at most `max_failures` pictures each may be unreadable.

        A killed audit run again in the same folder goes on where it stopped.

        Raises ValueError for anything a user can repair.
        """
        from shortcut_lightning.audit.page import write_page

        usable(self.compute.device)
        models: dict[str, Backbone] = {}
        if self.files.given:
            result = self.judge_files()
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            models = self._load()
            if is_stream(self.members) or is_stream(self.nonmembers):
                result = judge_streams(self, models, folder, pool, max_failures)
            else:
                result = self.judge(models, folder, pool)
        facts = {
            "settings": settings(self),
            "weights": {role: Model(backbone).name for role, backbone in models.items()},
            "code": code,
            "versions": dict(installed_versions()),
            "created": datetime.now().isoformat(timespec="seconds"),
        }
        result.write_json(folder / "report.json", facts)
        result.write_csv(folder / "scores.csv")
        write_page(result, folder / "report.html")
        log.info("%s", result.verdict.text)
        return result

    def judge_files(self) -> AuditResult:
        """The audit of scores that others measured. Raises ValueError for files that cannot be."""
        started = time.perf_counter()
        read = self.files.read()
        result = measured.judge(
            read,
            measured.Options(
                self.statistics.fprs,
                self.statistics.resamples,
                self.statistics.permutations,
                self.seed,
                self.dataset,
                self.headline,
            ),
        )
        result.seconds["in all"] = time.perf_counter() - started
        return result

    def engine(
        self,
        models: Mapping[str, Backbone],
        folder: Path | None = None,
        pool: Pool = InProcess(),  # noqa: B008
        progress: bool = True,
    ) -> Engine:
        """What asks the models, by the settings of this audit."""
        # The base comes last: it decides about words for all (see Engine.anchor).
        order = [role for role in ("target", "shadow", "base") if role in models]
        return Engine(
            {role: models[role] for role in order},
            folder=folder,
            seed=self.seed,
            batch_size=self.compute.batch_size,
            images_per_chunk=self.compute.images_per_chunk,
            bf16=self.compute.bf16,
            compile_denoiser=self.compute.compile_denoiser,
            progress=progress,
            pool=pool,
        )

    def judge(
        self,
        models: dict[str, Backbone],
        folder: Path | None = None,
        pool: Pool = InProcess(),  # noqa: B008
    ) -> AuditResult:
        """The audit of models by role ("target", and if there are any "base" and "shadow").

        With a folder, measured features are kept in `features/` below it.
        """
        started = time.perf_counter()
        keys = ("members", "nonmembers", "shadow_members", "shadow_nonmembers")
        sets, warnings = read_sets(
            {key: getattr(self, key) for key in keys if getattr(self, key)},
            models["target"].resolution,
            self.seed,
            self.caption,
            Captioner(self.captioner) if self.captioner else None,
            folder / "captions.jsonl" if folder else None,
        )
        kept = Path(self.features) if self.features else folder and folder / "features"
        engine = self.engine(models, folder=kept, pool=pool)
        judge = Judge(engine, sets, self.seed, self.statistics.fprs, self.statistics.resamples)
        judged = judge.scores(self.scores)
        head = judged[self.headline]
        blind: list[Blind] = []
        if self.controls.blind:
            blind = blind_baselines(*sets[:2], self.seed, self.controls.blind_encoder)
        warnings += judge.reserves(self.headline, head, blind, self.controls.blind)
        return AuditResult(
            verdict=verdict(self.headline, head.plain, head.base, blind, judge.tuned_on),
            headline=self.headline,
            tuned_on=judge.tuned_on,
            judged=judged,
            blind=blind,
            captions=judge.captions(self.headline, head, self.controls.fixed_caption)
            if self.controls.captions
            else [],
            ladder=judge.ladder(self.statistics.ladder_error) if self.ladder else None,
            dataset=judge.dataset(self.scores, self.statistics.permutations, self.dataset_gradients)
            if self.dataset
            else {},
            members=sets.members,
            holdouts=sets.holdouts,
            warnings=warnings,
            seconds={**engine.seconds, "in all": time.perf_counter() - started},
            path=judge.path() if self.dataset else None,
        )

    def _load(self) -> dict[str, Backbone]:
        device = usable(self.compute.device)
        given = {"target": self.target, "shadow": self.shadow, "base": self.base}
        models: dict[str, Backbone] = {
            role: model.load(f"audit.{role}").to(device)
            for role, model in given.items()
            if model.given
        }
        sizes = {role: model.resolution for role, model in models.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(
                f"The models work at different resolutions ({sizes}); target, shadow and base "
                "must be of one family (audit.target, audit.shadow, audit.base)."
            )
        return models


def usable(device: str) -> torch.device:
    """The device of this name; "auto" is a GPU where there is one.

    Raises ValueError where there is none of that name.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"audit.compute.device is '{device}', which cannot be used here ({reason}); give "
            "auto or cpu."
        ) from error
