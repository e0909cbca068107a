"""What is to be compared: factors with levels, whose combinations are the arms."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from shortcut_lightning import __version__, presets
from shortcut_lightning.bench.code import code_of_users
from shortcut_lightning.bench.paths import (
    content,
    located,
    pictures,
    subject_options,
    written,
)
from shortcut_lightning.ranges import CountOrNone, Ranged, Seed

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """A sentence about the table, and the comparison that decides it.

    Args:
        text: The sentence.
        metric: Such as `eval/identity`.
        arm: An arm's name, its levels joined by "/".
        against: Another arm's.
        higher: Whether the sentence says that the first has more.
    """

    text: str
    metric: str
    arm: str
    against: str
    higher: bool = True


class Cell(NamedTuple):
    """One run: an arm on one subject with one seed."""

    arm: str
    levels: tuple[str, ...]
    subject: str
    seed: int
    settings: dict[str, Any]  # options of the command line, in their order
    trained_as: str  # the arm whose training this one shares; its own name where it trains itself
    rank: int = 0  # cells of a lower rank are run first

    @property
    def name(self) -> tuple[str, str, int]:
        """What rows call it: arm, subject and seed."""
        return self.arm, self.subject, self.seed

    def folder(self, root: Path) -> Path:
        """Where its runs are kept."""
        return root / slug(self.subject) / f"seed{self.seed}" / slug(self.arm)


class Matrix(Ranged):
    """A matrix of runs.

    Args:
        base: Configuration files of every cell; paths are relative to the matrix's own file.
        factors: Factor -> level -> options of the command line without dashes, such as
            `{attack: {none: {}, noise: {data.attack: ../attacks/random_noise.yaml}}}`. An option
            `config` lays a whole file over the base. Arms are named by their levels: `noise/jpeg`.
        subjects: Folders of instance images, `pocket:3`, or `pocket:0-19` for twenty. A folder with
            `instance` and `reference` inside has held-out images too.
        seeds: Seeds of each cell.
        settings: Options of every cell. One is added on the command line by, for instance,
            `--settings.model.pretrained_model_name_or_path=FOLDER`.
        sampling: Name of the factor that changes nothing but sampling: its levels share one
            training.
        arms: Which combinations are run, and on how many subjects: pattern -> number, the first
            ones; 0 for all. The first pattern that fits an arm counts, arms that none fits are left
            out, and those on most subjects are run first. Empty for all combinations on all.
        skip: Patterns of arms that are left out, such as `clean/adaptive*`.
        against: Arms that others are compared with, pairwise by subject; `*` stands for an arm's
            own level, so `*/none` compares each with the same attack without defence.
        metrics: Metrics of the tables; empty for all of `eval/`. Those of claims are added.
        claims: Sentences to be decided.
        output_dir: Where cells and tables are kept.
        keep_checkpoints: Keep the weights of finished cells; they take most of the disk.
        twins: Files of other matrices, relative to this one's. Where `--rows` has kept rows of them
            beside its own folder, cells that come to the same settings are not run again.
    """

    def __init__(
        self,
        base: Sequence[str],
        factors: dict[str, dict[str, dict[str, Any]]],
        subjects: Sequence[str],
        seeds: Sequence[Seed] = (0,),
        settings: dict[str, Any] = {},  # noqa: B006
        sampling: str = "",
        arms: dict[str, CountOrNone] = {},  # noqa: B006
        skip: Sequence[str] = (),
        against: Sequence[str] = (),
        metrics: Sequence[str] = (),
        claims: Sequence[Claim] = (),
        output_dir: str = "runs/bench",
        keep_checkpoints: bool = False,
        twins: Sequence[str] = (),
    ) -> None:
        self.base = list(base)
        self.factors = factors
        self.subjects = [name for given in subjects for name in expanded(given)]
        self.seeds = list(seeds)
        self.settings = flat(settings)
        self.sampling = sampling
        self.wanted = dict(arms) or {"*": 0}
        self.skip = list(skip)
        self.against = list(against)
        self.metrics = list(metrics)
        self.claims = list(claims)
        self.asked = len(self.claims)  # also those that wait for arms which are not run
        self.output_dir = output_dir
        self.keep_checkpoints = keep_checkpoints
        self.twins = list(twins)
        self._arms = [
            levels
            for levels in product(*factors.values())
            if fits(levels, self.wanted) and not fits(levels, skip)
        ]
        self._check()

    def arms(self) -> list[tuple[str, ...]]:
        """Levels of every arm, in the order of the factors."""
        return self._arms

    def cells(self) -> list[Cell]:
        """All cells in the order in which they are run: by rank, subject and seed; those that share
        a training stand together, the one that trains first."""
        groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for levels in self._arms:
            groups.setdefault(self._but_sampling(levels), []).append(levels)
        ranks: dict[int, list[list[tuple[str, ...]]]] = {}
        for group in groups.values():
            ranks.setdefault(-max(map(self._subjects, group)), []).append(group)
        return [
            self._cell(levels, subject, seed, "/".join(sharing[0]), rank)
            for rank in sorted(ranks)
            for number, subject in enumerate(self.subjects)
            for seed in self.seeds
            for group in ranks[rank]
            if (sharing := [levels for levels in group if number < self._subjects(levels)])
            for levels in sharing
        ]

    def settings_of(self, levels: tuple[str, ...]) -> dict[str, Any]:
        """Options of an arm; of those given twice the last factor's count."""
        settings = dict(self.settings)
        for factor, level in zip(self.factors, levels, strict=True):
            settings |= self.factors[factor][level]
        return settings

    def compared_with(self, levels: tuple[str, ...]) -> list[str]:
        """Names of the arms that this one is compared with."""
        names = []
        for pattern in self.against:
            parts = pattern.split("/")
            name = "/".join(own if p == "*" else p for p, own in zip(parts, levels, strict=True))
            known = tuple(name.split("/")) in self._arms
            if known and name != "/".join(levels) and name not in names:
                names.append(name)
        return names

    def command(self, cell: Cell, folder: Path, checkpoint: str = "") -> list[str]:
        """The command line of a cell; with a checkpoint it only evaluates.

        `folder` is the matrix file's: paths in it are relative to that.
        """
        root = Path(self.output_dir)
        own = cell.folder(root)
        configs = [*self.base, *(v for k, v in cell.settings.items() if k == "config")]
        options = {"seed_everything": cell.seed, **subject_options(cell.subject, folder)}
        options |= {key: value for key, value in cell.settings.items() if key != "config"}
        options |= {"output_dir": str(own.parent), "name": own.name}
        options["trainer.devices"] = 1  # or Lightning would start `bench` once for each GPU
        words = ["test" if checkpoint else "fit"]
        for config in configs:
            words += ["--config", located(config, folder)]
        words += [f"--{key}={written(value, folder)}" for key, value in options.items()]
        return words + ([f"--ckpt_path={checkpoint}"] if checkpoint else [])

    def key(self, cell: Cell, folder: Path) -> str:
        """A hash of all that decides a cell: options, what the files they name say, the code of
        classes that a user wrote, the subject's pictures. Where the files lie does not matter, nor
        which cell did the training that is shared, so folders of several machines and parts of a
        matrix can be brought together."""
        facts = {
            "version": __version__,
            "base": [content(name, folder) for name in self.base],
            "options": {key: content(value, folder) for key, value in cell.settings.items()},
            "subject": pictures(cell.subject, folder),
            "seed": cell.seed,
        }
        if own := code_of_users([facts["base"], facts["options"]]):
            facts["code"] = own
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def read(cls, file: Path) -> "Matrix":
        """The matrix of a file by itself, as its rows are looked at."""
        given = yaml.safe_load(file.read_text("utf-8"))
        settings = presets.in_values(given, lambda name: (file.parent / name).is_file())
        claims = [Claim(**each) for each in settings.pop("claims", [])]
        return cls(**settings, claims=claims)

    def _subjects(self, levels: tuple[str, ...]) -> int:
        """On how many subjects the arm is run."""
        return self.wanted[fits(levels, self.wanted)] or len(self.subjects)

    def _cell(
        self, levels: tuple[str, ...], subject: str, seed: int, trained_as: str, rank: int
    ) -> Cell:
        settings = self.settings_of(levels)
        return Cell("/".join(levels), levels, subject, seed, settings, trained_as, rank)

    def _but_sampling(self, levels: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            level
            for factor, level in zip(self.factors, levels, strict=True)
            if factor != self.sampling
        )

    def _check(self) -> None:
        if not (self.base and self.factors and self.subjects and self.seeds):
            raise ValueError(
                "A matrix needs base, factors, subjects and seeds, each with at least one entry."
            )
        for factor, levels in self.factors.items():
            bad = [name for name in levels if not name or "/" in name or "*" in name]
            if bad or not levels:
                raise ValueError(
                    f"factors.{factor}: a factor needs levels, whose names have no '/' and no '*';"
                    f" given: {', '.join(levels) or 'none'}."
                )
        given = [self.settings, *(s for levels in self.factors.values() for s in levels.values())]
        if any("trainer.devices" in settings for settings in given):
            raise ValueError(
                "trainer.devices cannot be set in a matrix: each cell takes one device; several "
                "are kept busy by --workers."
            )
        if self.sampling and self.sampling not in self.factors:
            raise ValueError(
                f"sampling is '{self.sampling}', which is no factor; factors: "
                f"{', '.join(self.factors)}."
            )
        arms = ["/".join(levels) for levels in self.arms()]
        if not arms:
            raise ValueError("arms and skip leave no arm.")
        idle = [p for p in self.wanted if not any(fnmatchcase(arm, p) for arm in arms)]
        if idle:
            raise ValueError(
                f"arms: '{idle[0]}' fits no arm; arms: {', '.join(arms[:12])}"
                f"{', ...' if len(arms) > 12 else ''}."
            )
        for pattern in self.against:
            if pattern.count("/") != len(self.factors) - 1:
                raise ValueError(
                    f"against: '{pattern}' must have a level or * for each factor, joined by '/', "
                    f"such as {arms[0]}."
                )
            for part, (factor, levels) in zip(
                pattern.split("/"), self.factors.items(), strict=True
            ):
                if part != "*" and part not in levels:
                    raise ValueError(
                        f"against: '{pattern}' names '{part}', which is no level of {factor}; "
                        f"levels: {', '.join(levels)}."
                    )
        for claim in self.claims:
            unknown = [name for name in (claim.arm, claim.against) if name not in arms]
            if unknown:
                raise ValueError(
                    f"claims: '{claim.text}' names the arm '{unknown[0]}', which is not in the "
                    f"matrix; arms: {', '.join(arms[:12])}{', ...' if len(arms) > 12 else ''}."
                )


def fits(levels: Sequence[str], patterns: Iterable[str]) -> str:
    """The first of the patterns that an arm's name fits; "" for none."""
    name = "/".join(levels)
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), "")


def flat(settings: Settings) -> dict[str, Any]:
    """`{model: {x: 1}}`, as a command line's `--settings.model.x=1` is read, as `{model.x: 1}`."""
    options: dict[str, Any] = {}
    for key, value in settings.items():
        if key in ("trainer", "model", "data") and isinstance(value, Mapping):
            options |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            options[key] = value
    return options


def expanded(subject: str) -> list[str]:
    """`pocket:0-19` as twenty subjects; anything else as it is."""
    match = re.fullmatch(r"pocket:(\d+)-(\d+)", subject)
    if not match:
        return [subject]
    return [f"pocket:{number}" for number in range(int(match[1]), int(match[2]) + 1)]


def slug(name: str) -> str:
    """A name as a folder's; different names of one matrix stay different in practice."""
    return re.sub(r"[^\w.+-]+", "-", name.strip("/.")) or "x"
