"""The tables over the audits of configs/audit/tables/run.sh, and what they say of CLiD's claims.

python -m shortcut_lightning.audit.tables FOLDER [--keep ROWS]
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

from shortcut_lightning.audit.pooled import Collection, area, caught, read_audit, success
from shortcut_lightning.audit.table_claims import OURS, SETTINGS, claims_table, found_settings
from shortcut_lightning.audit.table_path import (
    LEVELS,
    curves_table,
    keep_levels,
    levels_of,
    peak_table,
)
from shortcut_lightning.audit.table_quality import PictureQuality
from shortcut_lightning.audit.table_text import interval, markdown, range_of, signed
from shortcut_lightning.files.atomic import atomic

SECONDS = "seconds.json"  # beside `reports`, and in the folder that `keep` copies to
ARMS = "dreambooth "


class AuditTables:
    """What the finished audits of one folder say, as Markdown.

    Args:
        reports: Folder with a folder for each audit, as `audit` leaves it or as `keep` copies it.
        beside: Folder of what was measured beside the audits, seconds for an image by score and
            the quality of pictures; None for `reports`, as `keep` copies it.

    Raises:
        ValueError: no finished audit is there.
    """

    def __init__(self, reports: Path, beside: Path | None = None) -> None:
        done = [path.parent for path in sorted(reports.glob("*/report.json"))]
        if not done:
            raise ValueError(f"No finished audits in {reports}; run.sh makes them.")
        audits = [read_audit(each) for each in done]
        self._folder = reports
        self._arms = [each for each in audits if each.name.startswith(ARMS)]
        self._same = Collection([each for each in audits if not each.name.startswith(ARMS)])
        features = (beside or reports) / "features"
        levels = [levels_of(each, reports / each.name, features) for each in audits]
        self._levels = [each for each in levels if each]
        self._times = _times_in(beside or reports)
        self._quality = PictureQuality(beside or reports)

    @property
    def settings(self) -> list[str]:
        """Those that have been audited."""
        return found_settings(self._same, tuple(SETTINGS))

    def seeds(self, setting: str) -> int:
        """How many trainings of a setting have been audited."""
        return len(self._same.seeds(setting))

    def area(self, setting: str, score: str) -> str:
        """AUC of a score, the mean over the setting's seeds, with its interval."""
        return interval(self._same.mean(area, [(1, setting, score)]))

    def title(self, setting: str) -> str:
        """A setting in words."""
        return SETTINGS[setting]

    def minus_base(self, setting: str, score: str) -> str:
        """AUC of a score with the base model's answer taken off: its range over the seeds, or
        nothing where no base model was asked."""
        names = self._same.seeds(setting)
        shifted = [self._same.audits[n].report["scores"][score]["target_minus_base"] for n in names]
        return range_of([each["auc"]["value"] for each in shifted]) if all(shifted) else ""

    def methods(self, setting: str) -> str:
        """Every score of a setting: success, AUC, members caught, and after the base is taken."""
        return _methods(self._same, setting, self._times)

    def again(self, name: str) -> str:
        """AUC values of an earlier state, from a CSV of setting, score and value with its digits
        that lies beside the folder of audits, against these; settings that were not audited are
        left out."""
        rows = []
        with (self._folder.parent / name).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                setting, score, value = row["setting"], row["score"], row["value"]
                if self._same.has(setting, score):
                    digits = len(value.partition(".")[2])
                    now = f"{self._same.mean(area, [(1, setting, score)]).value:.{digits}f}"
                    rows.append([SETTINGS[setting], score, value, now])
        same = sum(float(then) == float(now) for *_, then, now in rows)
        differ = [[*row, "no"] for row in rows if float(row[2]) != float(row[3])]
        said = f"{same} of {len(rows)} AUCs are the same in every digit that was given"
        if not differ:
            return f"{said}."
        table = markdown(["setting", "score", "earlier", "again", "the same"], differ)
        return f"{said}; the others:\n\n{table}"

    def controls(self) -> str:
        """What each audit found on a model that cannot know, and without any model."""
        return _controls(self._same)

    def claims(self) -> str:
        """CLiD's claims, and whether they hold here."""
        return claims_table(self._same)

    def quality(self) -> str:
        """What the pictures of audited models are worth; empty where none were drawn."""
        return self._quality.table()

    def quality_paired(self) -> str:
        """The same by differences of the defended and the others, picture by picture."""
        return self._quality.paired("u-shaped20", "full20")

    def path(self) -> str:
        """Where on the path members are told best, for audits that measured it."""
        return curves_table(self._same)

    def peak(self) -> str:
        """What is asked of that place, where the levels of each picture are there."""
        return peak_table(Collection(self._levels)) if self._levels else ""

    def arms(self) -> str:
        """DreamBooth with and without defences; empty where none was audited."""
        return _arms(Collection(self._arms)) if self._arms else ""

    def facts(self) -> str:
        """Weights, code and versions behind the audits, each kind once."""
        reports = [each.report for each in (*self._same.audits.values(), *self._arms)]
        code = sorted({str(report.get("code", "")) for report in reports})
        bases = sorted({str(report.get("weights", {}).get("base", "")) for report in reports})
        versions = sorted(
            {" ".join(f"{k} {v}" for k, v in r.get("versions", {}).items()) for r in reports}
        )
        return f"code {', '.join(code)}; base {', '.join(bases)}; {'; '.join(versions)}"


def make_tables(folder: Path) -> str:
    """Markdown from all finished audits in `folder/reports`; also written to `folder/tables.md`.

    Raises ValueError when there are none.
    """
    tables = AuditTables(folder / "reports", folder)
    parts = [
        text
        for setting in tables.settings
        for text in (f"**{SETTINGS[setting]}**", tables.methods(setting))
    ]
    parts += ["**Controls**", tables.controls()]
    parts += ["**Claims**", tables.claims()]
    named = {
        "Quality": tables.quality(),
        "Quality, paired": tables.quality_paired(),
        "Path": tables.path(),
        "Peak": tables.peak(),
    }
    for name, text in named.items():
        parts += [f"**{name}**", text] if text else []
    if arms := tables.arms():
        parts += ["**DreamBooth**", arms]
    text = "\n\n".join(parts) + "\n"
    with atomic(folder / "tables.md") as half:
        half.write_text(text, encoding="utf-8")
    return text


def _times_in(folder: Path) -> dict[str, float]:
    """Score -> seconds for an image, as tests/benchmarks/membership_speed.py leaves them there."""
    file = folder / SECONDS
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}


def keep(folder: Path, rows: Path) -> list[str]:
    """Copies what pages rest on, of every finished audit in `folder/reports`, to `rows`: what the
    tables read of a report, with paths as if `folder` lay in `runs`, a row for each picture without
    its caption, which is the longest part of it, and, where they were measured, its losses along
    the path, what scores take and what pictures are worth. Returns the audits' names."""
    names = []
    rows.mkdir(parents=True, exist_ok=True)
    if times := _times_in(folder):
        with atomic(rows / SECONDS) as half:
            half.write_text(json.dumps(times, indent=1) + "\n", encoding="utf-8")
    PictureQuality(folder).keep(rows)
    for report in sorted(folder.glob("reports/*/report.json")):
        name = report.parent.name
        facts = json.loads(report.read_text("utf-8"))
        facts["scores"] = {title: _kept(score) for title, score in facts["scores"].items()}
        said = json.dumps(facts, separators=(",", ":"))
        said = said.replace(json.dumps(f"{folder}/")[1:-1], f"runs/{folder.name}/")
        (rows / name).mkdir(parents=True, exist_ok=True)
        with atomic(rows / name / "report.json") as half:
            half.write_text(said + "\n", encoding="utf-8")
        with (report.parent / "scores.csv").open(encoding="utf-8", newline="") as file:
            head, *lines = csv.reader(file)
        caption = head.index("caption")
        with atomic(rows / name / "scores.csv") as half, half.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(head)
            writer.writerows([*line[:caption], "", *line[caption + 1 :]] for line in lines)
        if levels := levels_of(read_audit(report.parent), report.parent, folder / "features"):
            keep_levels(levels, rows / name / LEVELS)
        names.append(name)
    return names


def _kept(score: dict[str, Any]) -> dict[str, Any]:
    """Of one score: what it costs, its AUC and threshold, and what the base model says."""
    shifted = score["target_minus_base"]
    return {
        "queries": score["queries"],
        "target": {key: score["target"][key] for key in ("auc", "tau")},
        "target_minus_base": shifted and {"auc": shifted["auc"]},
        "base": score["base"],
    }


def _methods(found: Collection, setting: str, times: dict[str, float]) -> str:
    names = found.seeds(setting)
    rows, scores = [], found.audits[names[0]].scores
    timed = not times.keys().isdisjoint(scores)
    for score in scores:
        milliseconds = f"{times[score] * 1000:.0f}" if score in times else ""
        reports = [found.audits[name].report["scores"][score] for name in names]
        areas = [report["target"]["auc"]["value"] for report in reports]
        shifted = [r["target_minus_base"] for r in reports]
        rows.append(
            [
                score,
                str(reports[0]["queries"]),
                *([milliseconds] if timed else ()),
                *(interval(found.mean(s, [(1, setting, score)])) for s in (success, area, caught)),
                range_of(areas) if len(areas) > 1 else "",
                range_of([each["auc"]["value"] for each in shifted]) if all(shifted) else "",
            ]
        )
    head = ["score", "queries", *(["ms an image"] if timed else ()), "ASR", "AUC", "TPR at 1 % FPR",
            "AUC of the seeds", "AUC, minus base"]  # fmt: skip
    return markdown(head, rows)


def _controls(found: Collection) -> str:
    rows = []
    for name, each in found.audits.items():
        report = each.report
        if not all(score["base"] for score in report["scores"].values()):
            continue  # asked without a base model
        head = report["scores"][report["headline"]]
        areas = [score["base"]["auc"] for score in report["scores"].values()]
        failed = [n for n, score in report["scores"].items() if not score["base"]["passed"]]
        rows.append(
            [
                name,
                f"{head['base']['auc']:.2f} (± {3 * head['base']['error']:.2f})",
                f"{min(areas):.2f} to {max(areas):.2f}{'; outside: ' if failed else ''}"
                + ", ".join(failed),
                ", ".join(f"{b['name']} {b['auc']:.2f}" for b in report["blind"]),
                ", ".join(f"{c['name']} {c['auc']:.2f}" for c in report["captions"]),
                ", ".join(f"{t} p = {d['p_value']:.3f}" for t, d in report["dataset"].items()),
            ]
        )
    head = ["audit", f"{OURS} on the base model (3 errors)", "all scores there", "blind",
            "captions changed", "the set as a whole"]  # fmt: skip
    return markdown(head, rows)


def _arms(found: Collection) -> str:
    """The defended are compared with their undefended likes, the protected with the clean."""
    rows = []
    scores = (OURS, "D null", "Monte-Carlo", "SimA")
    for name in found.audits:
        arm = name.removeprefix(ARMS)
        other = "protected" if arm.startswith("protected") and arm != "protected" else "clean"
        changes = [[(1.0, name, s), (-1.0, ARMS + other, s)] for s in (OURS, "SimA")]
        known = arm != "clean" and found.has(ARMS + other, OURS)
        rows.append(
            [
                arm,
                *(interval(found.mean(area, [(1, name, score)])) for score in scores),
                f"{found.audits[name].report['scores'][OURS]['base']['auc']:.2f}",
                other if known else "",
                *(signed(found.mean(area, c)) if known else "" for c in changes),
            ]
        )
    head = ["model", *(f"AUC {score}" for score in scores), f"{OURS} on the base model",
            "against", f"{OURS}", "SimA"]  # fmt: skip
    return markdown(head, rows)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Tables over audits.")
    parser.add_argument("folder", type=Path, help="What configs/audit/tables/run.sh was given.")
    parser.add_argument("--keep", type=Path, help="Copy what pages rest on to this folder.")
    given = parser.parse_args()
    try:
        sys.stdout.write(make_tables(given.folder))
        if given.keep:
            names = keep(given.folder, given.keep)
            sys.stdout.write(f"{len(names)} audits kept in {given.keep}\n")
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
