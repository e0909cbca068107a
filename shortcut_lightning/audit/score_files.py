"""The files of an audit of scores that others measured: which there are, and what they hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shortcut_lightning.audit.evaluator import Features
from shortcut_lightning.audit.score_formats import Columns, read_columns

CLID = "clid"
_SIGNS = {"high": 1.0, "low": -1.0}
ROLES = ("", "base_", "shadow_")


@dataclass(frozen=True)
class ScoreFiles:
    """Paths by key, empty where there is none, the columns that are taken, and what high means.

    `direction` is one word for all columns or one for each, in order or as "name=word": "high" or
    "low", whichever members have; or "clid" alone, for CLiD's columns.
    """

    paths: dict[str, str]
    columns: Sequence[str]
    direction: Sequence[str]

    @property
    def given(self) -> bool:
        """Whether there are any."""
        return any(self.paths.values())

    def check(self, others: Sequence[str] = ()) -> None:
        """Raises ValueError for files that do not make an audit, or not beside the `others`, keys
        of an audit of pictures that were given."""
        if not self.given:
            for key, words in (("score_columns", self.columns), ("direction", self.direction)):
                if words:
                    raise ValueError(
                        f"audit.{key} is about files of scores; give audit.member_scores and "
                        "audit.nonmember_scores, or leave it out."
                    )
            return
        if others:
            given = next(key for key, path in self.paths.items() if path)
            raise ValueError(
                f"audit.{given} gives scores that were measured and audit.{others[0]} asks for "
                "measuring; give one of them."
            )
        for role in ROLES:
            keys = [key for key in self.paths if _role(key) == role]
            there = [key for key in keys if self.paths[key]]
            if there and len(there) < len(keys):
                missing = next(key for key in keys if not self.paths[key])
                raise ValueError(
                    f"audit.{there[0]} is given and audit.{missing} is not; scores of members and "
                    "of non-members come together."
                )
        if not self.paths["member_scores"]:
            there = [key for key, path in self.paths.items() if path]
            raise ValueError(
                f"audit.{there[0]} needs the audited scores too: audit.member_scores and "
                "audit.nonmember_scores."
            )
        known: dict[Path, str] = {}
        for key, path in self.paths.items():
            if path and (other := known.setdefault(Path(path).resolve(), key)) != key:
                raise ValueError(
                    f"audit.{other} and audit.{key} are the same file, {path}; they must be scores "
                    "of different pictures, or on different models."
                )
        words = [word.rpartition("=")[2].strip() for word in self.direction]
        if wrong := [word for word in words if word not in (*_SIGNS, CLID)]:
            raise ValueError(
                f"audit.direction is {wrong[0]!r}; allowed: high or low, whichever members have, "
                "one for all columns or one for each (loss=low,pia=high); or clid, for CLiD's."
            )
        if CLID in words and len(words) > 1:
            raise ValueError("audit.direction: clid stands for all columns and must stand alone.")

    def read(self) -> "Measured":
        """All files. Raises ValueError for one that cannot be read or does not fit the others."""
        tables = {key: self._table(key, path) for key, path in self.paths.items() if path}
        first = tables["member_scores"]
        for key, table in tables.items():
            if len(table.names) != len(first.names):
                raise ValueError(
                    f"audit.{key} has {len(table.names)} columns and audit.member_scores "
                    f"{len(first.names)}; name those to take (audit.score_columns)."
                )
            if table.named and first.named and table.names != first.names:
                raise ValueError(
                    f"audit.{key} has the columns {', '.join(table.names)} and audit.member_scores "
                    f"{', '.join(first.names)}; they must be the same, in the same order "
                    "(audit.score_columns)."
                )
        _refuse_constants(tables)
        _refuse_twins({key: table.rows for key, table in tables.items()})
        signs, clid = self._signs(first)
        groups = {role: _pair(tables, role) for role in ROLES if f"{role}member_scores" in tables}
        base = groups.get("base_")
        for part, name in enumerate(("member_scores", "nonmember_scores")):
            if base and len(base[part]) != len(groups[""][part]):
                raise ValueError(
                    f"audit.base_{name} has {len(base[part])} rows and audit.{name} "
                    f"{len(groups[''][part])}; both are of the same pictures, in the same order."
                )
        names = [n or f"column {i}" for i, n in enumerate(first.names, 1)]
        return Measured(names, signs, clid, groups[""], base, groups.get("shadow_"))

    def _table(self, key: str, path: str) -> Columns:
        try:
            table = read_columns(Path(path), self.columns)
        except ValueError as error:
            hint = " Name the columns of scores (audit.score_columns)."
            hint = "" if self.columns or "got" not in str(error) else hint
            raise ValueError(f"audit.{key}: {error}{hint}") from error
        least = 4 if _role(key) == "" and not self.paths["shadow_member_scores"] else 2
        if len(table.rows) < least:
            raise ValueError(
                f"audit.{key}: {path} has {len(table.rows)} rows; at least {least} are needed, and "
                "hundreds for numbers worth having."
            )
        for place, name in enumerate(table.names):
            steps = np.diff(table.rows[:, place])
            if len(table.names) > 1 and table.rows[0, place] in (0, 1) and (steps == 1).all():
                raise ValueError(
                    f"audit.{key}: {name!r} of {path} counts the rows; name the columns of scores "
                    "(audit.score_columns)."
                )
        return table

    def _signs(self, table: Columns) -> tuple[np.ndarray, bool]:
        """(F,) 1 or -1, which makes columns high for members; whether they are CLiD's."""
        words, columns = list(self.direction), len(table.names)
        likely = table.named and table.names[0] == "cond0"
        if not words and likely and columns > 1:
            words = [CLID]
        if not words:
            raise ValueError(
                f"audit.direction is needed: do members have high or low scores? It is not guessed "
                f"from them. One word for all of {', '.join(table.names)}, or one for each "
                "(--audit.direction low, or loss=low,pia=high); clid for CLiD's columns."
            )
        if words == [CLID]:
            if columns < 2:
                raise ValueError(
                    "audit.direction is clid, whose columns are cond0, D_1, ..., D_null; the files "
                    "have one column. Give high or low."
                )
            return np.array([-1.0] + [1.0] * (columns - 1)), True
        if any("=" in word for word in words):
            words = self._by_name(table.names)
        if len(words) not in (1, columns):
            raise ValueError(
                f"audit.direction has {len(words)} words for {columns} columns "
                f"({', '.join(table.names)}); give one for all or one for each."
            )
        signs = [_SIGNS[word] for word in words]
        return np.array(signs * (columns if len(words) == 1 else 1)), False

    def _by_name(self, names: Sequence[str]) -> list[str]:
        parts = (word.rpartition("=") for word in self.direction)
        said = {name.strip(): word.strip() for name, _, word in parts}
        if wrong := [*(said.keys() - set(names)), *(name for name in names if name not in said)]:
            raise ValueError(
                f"audit.direction and the columns differ in {wrong[0]!r}; give name=high or "
                f"name=low for each of {', '.join(names)}."
            )
        return [said[name] for name in names]


@dataclass(frozen=True)
class Measured:
    """Rows as they were read, with the names of their columns."""

    names: list[str]
    signs: np.ndarray  # (F,) 1 or -1: what makes a column high for members
    clid: bool  # cond0, D_1, ..., D_null
    target: Features
    base: Features | None
    shadow: Features | None

    @property
    def direction(self) -> str:
        """What is taken as high for members, in words."""
        words = (
            f"{n} {'high' if s > 0 else 'low'}" for n, s in zip(self.names, self.signs, strict=True)
        )
        return ", ".join(words)


def words_of(value: Sequence[str] | str) -> list[str]:
    """A list, or words with commas between them; in brackets where a list's are numbers, which a
    command line's parser leaves as they were typed."""
    if isinstance(value, str):
        value = value.strip().removeprefix("[").removesuffix("]").split(",")
    return [word.strip() for word in value if word.strip()]


def _role(key: str) -> str:
    return next((role for role in ROLES if role and key.startswith(role)), "")


def _pair(tables: dict[str, Columns], role: str) -> Features:
    return Features(tables[f"{role}member_scores"].rows, tables[f"{role}nonmember_scores"].rows)


def _refuse_constants(tables: dict[str, Columns]) -> None:
    audited = np.concatenate([tables[key].rows for key in ("member_scores", "nonmember_scores")])
    for place in np.flatnonzero((audited == audited[0]).all(axis=0)):
        name = tables["member_scores"].names[place] or f"column {place + 1}"
        raise ValueError(
            f"{name!r} is {audited[0, place]:g} in each row of audit.member_scores and "
            "audit.nonmember_scores, which tells nothing; leave it out (audit.score_columns)."
        )


def _refuse_twins(rows: dict[str, np.ndarray]) -> None:
    keys = list(rows)
    for place, key in enumerate(keys):
        for other in keys[:place]:
            if np.array_equal(rows[key], rows[other]):
                raise ValueError(
                    f"audit.{other} and audit.{key} hold the same rows; one of them must be the "
                    "wrong file."
                )
