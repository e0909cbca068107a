"""The tables over the audits of configs/audit/tables/run.sh, and what they say of CLiD's claims.

python -m shortcut_lightning.audit.tables FOLDER [--keep ROWS]
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shortcut_lightning.audit.pooled import (
    Collection,
    area,
    caught,
    gap,
    read_audit,
    success,
)
from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.membership.roc import Interval

SETTINGS = {
    "full40": "over-trained: 40 epochs",
    "full20": "milder: 20 epochs",
    "slow20": "milder: every score",
    "full10": "10 epochs",
    "flip40": "40 epochs, mirrored at random",
    "flip20": "20 epochs, mirrored at random",
    "lora": "LoRA of rank 16, 20 epochs",
    "queries20": "20 epochs, one seed: queries and reducers",
    "timesteps20": "20 epochs, two seeds: CLiD around other timesteps",
    "rest40": "40 epochs: the slow scores and the white-box ones",
    "rest20": "20 epochs: the slow scores and the white-box ones",
}
SECONDS = "seconds.json"  # beside `reports`, and in the folder that `keep` copies to
BASELINES = ("Loss", "Monte-Carlo", "SecMI", "PIA", "PIAN", "PFAMI", "SimA")
OURS = "CLiD_th"
ARMS = "dreambooth "

Term = tuple[float, str, str]  # weight, setting, score


class Claim(NamedTuple):
    """A statement that holds if every difference is above zero, each a sum of AUCs."""

    text: str
    differences: dict[str, list[Term]]


class AuditTables:
    """What the finished audits of one folder say, as Markdown.

    Args:
        reports: Folder with a folder for each audit, as `audit` leaves it or as `keep` copies it.
        times: Seconds for an image by score, where they were measured; None for what `keep` has
            copied of them.

    Raises:
        ValueError: no finished audit is there.
    """

    def __init__(self, reports: Path, times: Mapping[str, float] | None = None) -> None:
        done = [path.parent for path in sorted(reports.glob("*/report.json"))]
        if not done:
            raise ValueError(f"No finished audits in {reports}; run.sh makes them.")
        audits = [read_audit(each) for each in done]
        self._folder = reports
        self._arms = [each for each in audits if each.name.startswith(ARMS)]
        self._same = Collection([each for each in audits if not each.name.startswith(ARMS)])
        self._times = _times_in(reports) if times is None else dict(times)

    @property
    def settings(self) -> list[str]:
        """Those that have been audited."""
        return found_settings(self._same, tuple(SETTINGS))

    def seeds(self, setting: str) -> int:
        """How many trainings of a setting have been audited."""
        return len(self._same.seeds(setting))

    def area(self, setting: str, score: str) -> str:
        """AUC of a score, the mean over the setting's seeds, with its interval."""
        return _interval(self._same.mean(area, [(1, setting, score)]))

    def title(self, setting: str) -> str:
        """A setting in words."""
        return SETTINGS[setting]

    def minus_base(self, setting: str, score: str) -> str:
        """AUC of a score with the base model's answer taken off: its range over the seeds, or
        nothing where no base model was asked."""
        names = self._same.seeds(setting)
        shifted = [self._same.audits[n].report["scores"][score]["target_minus_base"] for n in names]
        return _range([each["auc"]["value"] for each in shifted]) if all(shifted) else ""

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
        return _claims(self._same)

    def path(self) -> str:
        """Where on the path members are told best, for audits that measured it."""
        return _path(self._same)

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
    tables = AuditTables(folder / "reports", _times_in(folder))
    parts = [
        text
        for setting in tables.settings
        for text in (f"**{SETTINGS[setting]}**", tables.methods(setting))
    ]
    parts += ["**Controls**", tables.controls()]
    parts += ["**Claims**", tables.claims()]
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
    its caption, which is the longest part of it, and what scores take, where that was measured.
    Returns the audits' names."""
    names = []
    if times := _times_in(folder):
        rows.mkdir(parents=True, exist_ok=True)
        with atomic(rows / SECONDS) as half:
            half.write_text(json.dumps(times, indent=1) + "\n", encoding="utf-8")
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
                *(_interval(found.mean(s, [(1, setting, score)])) for s in (success, area, caught)),
                _range(areas) if len(areas) > 1 else "",
                _range([each["auc"]["value"] for each in shifted]) if all(shifted) else "",
            ]
        )
    head = ["score", "queries", *(["ms an image"] if timed else ()), "ASR", "AUC", "TPR at 1 % FPR",
            "AUC of the seeds", "AUC, minus base"]  # fmt: skip
    return markdown(head, rows)


def _path(found: Collection) -> str:
    rows = []
    for name, each in found.audits.items():
        if not (path := each.report.get("path")):
            continue
        levels = path["levels"]
        peak = max(levels, key=lambda level: level["auc"])
        rows.append(
            [
                name,
                " ".join(f"{level['auc']:.2f}" for level in levels),
                f"{peak['share']:.2f}",
                f"{path['predicted_share']:.2f}",
            ]
        )
    if not rows:
        return ""
    shares = next(a.report["path"]["levels"] for a in found.audits.values() if a.report.get("path"))
    at = " ".join(f"{level['share']:.2f}" for level in shares)
    return markdown(["audit", f"AUC of the loss at s = {at}", "peak", "predicted"], rows)


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


def _claims(found: Collection) -> str:
    rows = []
    for claim in claims(found):
        values = {
            name: found.mean(area, terms)
            for name, terms in claim.differences.items()
            if all(found.has(setting, score) for _, setting, score in terms)
        }
        if values:
            said = "; ".join(f"{name} {_signed(value)}" for name, value in values.items())
            rows.append([claim.text, answer(list(values.values())), said])
    for setting in ("full40", "full20"):
        if not found.has(setting, "D null"):
            continue
        value = found.mean(gap, [(1, setting, "D null")])
        text = f"Conditional gap above marginal gap, {SETTINGS[setting]}"
        scaled = Interval(*(1000 * each for each in value))
        rows.append([text, answer([value]), f"1000 x mean D_null {_signed(scaled)}"])
    for setting in found_settings(found, ("full40", "full20", "full10", "lora")):
        rows.append(_calibration(found, setting))
    return markdown(["claim", "answer", "differences of AUC, 95 % interval"], rows)


def _calibration(found: Collection, setting: str) -> list[str]:
    """Target minus base against the target alone, by the intervals of each audit: it holds where
    the lowest bound of the one is above the highest of the other, in all seeds."""
    answers, said = [], []
    for score in (OURS, "Monte-Carlo", "D null log-ratio"):
        entries = [found.audits[name].report["scores"][score] for name in found.seeds(setting)]
        plain = [each["target"]["auc"] for each in entries]
        shifted = [each["target_minus_base"]["auc"] for each in entries]
        low, high = min(each["low"] for each in shifted), max(each["high"] for each in plain)
        above = min(s["low"] - p["high"] for s, p in zip(shifted, plain, strict=True))
        below = max(s["high"] - p["low"] for s, p in zip(shifted, plain, strict=True))
        answers.append("holds" if above > 0 else "does not hold" if below < 0 else "undecided")
        said.append(f"{score}: at least {low:.2f} against at most {high:.2f}")
    return [
        f"Target minus base separates better than the target alone, {SETTINGS[setting]}",
        answers[0] if len(set(answers)) == 1 else "undecided",
        "; ".join(said),
    ]


def claims(found: Collection) -> Iterator[Claim]:
    """What can be asked of the audits that are there."""
    over, milder = found_settings(found, ("full40", "full20")) + [""] * 2, "full20"
    for setting in found_settings(found, ("full40", "full20", "slow20", "lora")):
        yield Claim(
            f"CLiD above every baseline, {SETTINGS[setting]}",
            {b: _versus(setting, OURS, b) for b in _baselines(found, setting)},
        )
    if over[0] and over[1]:
        yield Claim(
            "CLiD loses less by early stopping (40 to 20 epochs) than every baseline",
            {
                b: [*_versus(milder, OURS, b), *_versus(over[0], b, OURS)]
                for b in _baselines(found, milder)
            },
        )
    for epochs in ("40", "20"):
        if found_settings(found, (f"flip{epochs}", f"full{epochs}"))[1:]:
            yield Claim(
                f"CLiD loses less by augmentation than every baseline, {epochs} epochs",
                {
                    b: [*_versus(f"flip{epochs}", OURS, b), *_versus(f"full{epochs}", b, OURS)]
                    for b in _baselines(found, f"flip{epochs}")
                },
            )
    for setting in found_settings(found, ("full40", "full20")):
        for few in ("CLiD_th, 2 queries", "CLiD_th, 6 queries"):
            yield Claim(
                f"15 queries above {few.split(', ')[1]}, {SETTINGS[setting]}",
                {"": _versus(setting, OURS, few)},
            )
    if found_settings(found, ("queries20",)):
        many = _versus("queries20", "CLiD_th, 45 queries", OURS)
        yield Claim("45 queries above 15, 20 epochs, one seed", {"": many})
    for setting in found_settings(found, ("full40", "full20", "full10", "lora")):
        for plain in ("D null", OURS):
            yield Claim(
                f"The log-ratio separates better than the difference in {plain}, "
                f"{SETTINGS[setting]}",
                {"": _versus(setting, f"{plain} log-ratio", plain)},
            )


def found_settings(found: Collection, wanted: Sequence[str]) -> list[str]:
    """Those of the settings that have been audited."""
    return [setting for setting in wanted if found.seeds(setting)]


def answer(values: Sequence[Interval]) -> str:
    """Holds if all differences are surely above zero; does not, if one is surely below."""
    if all(value.low > 0 for value in values):
        return "holds"
    return "does not hold" if any(value.high < 0 for value in values) else "undecided"


def _versus(setting: str, first: str, second: str) -> list[Term]:
    return [(1.0, setting, first), (-1.0, setting, second)]


def _baselines(found: Collection, setting: str) -> list[str]:
    known = found.audits[found.seeds(setting)[0]].scores
    return [name for name in BASELINES if name in known]


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
                *(_interval(found.mean(area, [(1, name, score)])) for score in scores),
                f"{found.audits[name].report['scores'][OURS]['base']['auc']:.2f}",
                other if known else "",
                *(_signed(found.mean(area, c)) if known else "" for c in changes),
            ]
        )
    head = ["model", *(f"AUC {score}" for score in scores), f"{OURS} on the base model",
            "against", f"{OURS}", "SimA"]  # fmt: skip
    return markdown(head, rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _interval(value: Interval) -> str:
    return f"{value.value:.2f} ({value.low:.2f} to {value.high:.2f})"


def _signed(value: Interval) -> str:
    return f"{value.value:+.2f} ({value.low:+.2f} to {value.high:+.2f})"


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
