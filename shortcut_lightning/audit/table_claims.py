"""What audits of several settings say of CLiD's claims, and of a defence against it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from shortcut_lightning.audit.pooled import Collection, Term, area, gap
from shortcut_lightning.audit.table_text import differences, markdown, signed
from shortcut_lightning.membership.roc import Interval

ALONG = ": along the path from picture to noise"
SETTINGS = {
    "full40": "over-trained: 40 epochs",
    "full20": "milder: 20 epochs",
    "slow20": "milder: every score",
    "full10": "10 epochs",
    "slow10": "10 epochs: every score",
    "flip40": "40 epochs, mirrored at random",
    "flip20": "20 epochs, mirrored at random",
    "u-shaped20": "20 epochs, levels drawn away from the middle of the path",
    "path40": f"40 epochs{ALONG}",
    "path20": f"20 epochs{ALONG}",
    "lora": "LoRA of rank 16, 20 epochs",
    "slow-lora": "LoRA of rank 16, 20 epochs: every score",
    "queries20": "20 epochs, one seed: queries and reducers",
    "timesteps20": "20 epochs, two seeds: CLiD around other timesteps",
    "rest40": "40 epochs: the slow scores and the white-box ones",
    "rest20": "20 epochs: the slow scores and the white-box ones",
}
MAIN = ("full40", "full20", "full10", "lora")  # that claims are asked in
SLOW = ("slow20", "slow10", "slow-lora")  # with the baselines that take long
BASELINES = ("Loss", "Monte-Carlo", "SecMI", "PIA", "PIAN", "PFAMI", "SimA")
OURS = "CLiD_th"


class Claim(NamedTuple):
    """A statement that holds if every difference is above zero, each a sum of AUCs."""

    text: str
    differences: dict[str, list[Term]]


def claims_table(found: Collection) -> str:
    """Every claim that can be asked of the audits, its answer, and the differences behind it."""
    rows = []
    for claim in claims(found):
        values = {
            name: found.mean(area, terms)
            for name, terms in claim.differences.items()
            if all(found.has(setting, score) for _, setting, score in terms)
        }
        if values:
            rows.append([claim.text, answer(list(values.values())), differences(values)])
    for setting in MAIN:
        if not found.has(setting, "D null"):
            continue
        value = found.mean(gap, [(1, setting, "D null")])
        text = f"Conditional gap above marginal gap, {SETTINGS[setting]}"
        scaled = Interval(*(1000 * each for each in value))
        rows.append([text, answer([value]), f"1000 x mean D_null {signed(scaled)}"])
    for setting in found_settings(found, MAIN):
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
    for setting in found_settings(found, (*MAIN, *SLOW)):
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
    if found_settings(found, ("u-shaped20", "full20"))[1:]:
        scores = {"CLiD": (OURS,), "every baseline": _baselines(found, "u-shaped20")}
        for whose, names in scores.items():
            yield Claim(
                f"Levels away from the middle of the path lower the AUC of {whose}, 20 epochs",
                {name: [(1.0, "full20", name), (-1.0, "u-shaped20", name)] for name in names},
            )
    for setting in found_settings(found, MAIN):
        for few in ("CLiD_th, 2 queries", "CLiD_th, 6 queries"):
            yield Claim(
                f"15 queries above {few.split(', ')[1]}, {SETTINGS[setting]}",
                {"": _versus(setting, OURS, few)},
            )
    if found_settings(found, ("queries20",)):
        many = _versus("queries20", "CLiD_th, 45 queries", OURS)
        yield Claim("45 queries above 15, 20 epochs, one seed", {"": many})
    for setting in found_settings(found, MAIN):
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
