"""The audit as one self-contained page: verdict, numbers, curves, images, controls."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from shortcut_lightning.audit.controls import CAPTION_CONTROLS
from shortcut_lightning.audit.ladder import DecidedSet
from shortcut_lightning.audit.path_curve import PathCurve
from shortcut_lightning.audit.result import AuditResult, Judged
from shortcut_lightning.audit.words import WORDS
from shortcut_lightning.files.atomic import write_text
from shortcut_lightning.membership.roc import Interval, roc
from shortcut_lightning.report.page import Page, Section, render
from shortcut_lightning.report.pictures import data_uri
from shortcut_lightning.report.sections import cautions

MOST_IMAGES = 12
POINTS = 10_000  # of a curve; of more a part is drawn
CURVES = 6  # scores in the plot of curves, the headline among them

_TEMPLATES = Environment(autoescape=True, undefined=StrictUndefined)
_TABLE = _TEMPLATES.from_string("""<div style="overflow-x:auto"><table>
<tr>{% for each in head %}<th style="text-align:left;padding-right:18px">{{ each }}</th>
{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td style="padding-right:18px">{{ cell }}</td>
{% endfor %}</tr>{% endfor %}</table></div>""")
_IMAGES = _TEMPLATES.from_string("""<div class="photographs">
{% for uri, words in images %}<figure><img src="{{ uri }}" alt="{{ words }}">
<figcaption>{{ words }}</figcaption></figure>{% endfor %}</div>""")


def write_page(result: AuditResult, path: Path) -> None:
    """Writes the page; raises nothing of its own."""
    head = result.judged[result.headline]
    sections = [
        Section("Verdict", Markup("<p>{}</p>").format(result.verdict.text)),
        _scores(result),
        _false_accusations(result.headline, head, result.tuned_on),
        Section("Curves", _curves(result), "Both axes logarithmic; the diagonal is guessing."),
        Section("Distribution", _histogram(head), f"{result.headline}, tau as set beforehand."),
    ]
    if result.members:
        sections.append(_surest(result, head))
    if result.blind or result.captions or head.base:
        sections.append(_controls(result))
    if result.ladder:
        sections.append(_ladder(result.ladder))
    if result.dataset:
        sections.append(_dataset(result))
    if result.path:
        sections.append(_path(result.path))
    if result.left_out:
        sections.append(_left_out(result))
    sections += [_care(result), _words(result)]
    page = Page(
        title=f"Membership audit: {result.verdict.kind}",
        facts=[
            f"{head.plain.n_members} members and {head.plain.n_holdouts} non-members judged",
            f"tuned on {result.tuned_on}",
            f"{result.seconds['in all']:.0f} seconds",
        ],
        sections=sections,
    )
    write_text(path, render(page))


def _scores(result: AuditResult) -> Section:
    rows, asked = [], ["access", "queries"] if _asked(result) else []
    for name, each in result.judged.items():
        one = next((r for r in each.plain.rates if r.fpr == 0.01), None)
        rows.append(
            [
                name,
                *([each.score.access, each.score.queries] if asked and each.score else []),
                _interval(each.plain.auc),
                f"{each.plain.p_value:.2g}",
                _interval(each.plain.asr),
                _interval(one.tpr_member) if one else "",
                _interval(one.tpr_holdout_ref) if one else "",
                f"{each.base.auc:.3f}{'' if each.base.passed else ' (!)'}" if each.base else "–",
                _interval(each.base.gain) if each.base else "–",
                _interval(each.calibrated.auc) if each.calibrated else "–",
            ]
        )
    head = ["score", *asked, "AUC", "p", "ASR", "TPR member at 1 %",
            "TPR hold-out (ref) at 1 %", "AUC on base", "AUC above that",
            "AUC, target minus base"]  # fmt: skip
    lead = (
        "95 % bootstrap intervals; p is one-sided (Mann-Whitney); (!) marks a base model that "
        "tells the sets apart."
    )
    return Section("Scores", Markup(_TABLE.render(head=head, rows=rows)), lead)


def _asked(result: AuditResult) -> bool:
    """Whether these scores asked a model, and were not given in files."""
    return all(each.score for each in result.judged.values())


def _false_accusations(name: str, head: Judged, tuned_on: str) -> Section:
    rows = [
        [
            f"{rate.fpr:.1%}",
            _interval(rate.realised_fpr),
            _interval(rate.realised_tpr),
            _interval(rate.tpr_member),
            rate.support,
        ]
        for rate in head.plain.rates
    ]
    rows.append(
        ["best accuracy", _interval(head.plain.realised_fpr), _interval(head.plain.realised_tpr),
         "", ""]
    )  # fmt: skip
    table = _TABLE.render(
        head=["threshold set for", "non-members flagged", "members flagged",
              "members caught at most", "hold-outs"],
        rows=rows,
    )  # fmt: skip
    return Section(
        "False accusations",
        Markup(table),
        f"{name}; thresholds set on {tuned_on}, what they came to with Wilson intervals.",
    )


def _surest(result: AuditResult, head: Judged) -> Section:
    pictures = [*result.members, *result.holdouts]
    scores = np.concatenate(head.scores)
    images = []
    for place in np.argsort(-scores)[:MOST_IMAGES]:
        truth = "member" if place < len(result.members) else "NON-MEMBER"
        words = f"{truth}, {scores[place]:.2f}: {pictures[place].name}"
        images.append((data_uri(pictures[place].pixels()), words))
    lead = "Highest scores of all judged images, with what they truly are."
    return Section("Most surely members", Markup(_IMAGES.render(images=images)), lead)


def _controls(result: AuditResult) -> Section:
    rows = [
        [f"blind: {each.name}", f"{each.auc:.3f}", f"± {3 * each.error:.3f}",
         "tells them apart: void" if each.tells else "does not tell them apart"]
        for each in result.blind
    ]  # fmt: skip
    gate = result.judged[result.headline].base
    if gate:
        words = "does not tell them apart" if gate.passed else "tells them apart: void"
        rows.append(["model that cannot know", f"{gate.auc:.3f}", f"± {3 * gate.error:.3f}", words])
    rows += [
        [f"captions {each.name}", f"{each.auc:.3f}", f"± {3 * each.error:.3f}",
         CAPTION_CONTROLS[each.name]]
        for each in result.captions
    ]  # fmt: skip
    table = _TABLE.render(head=["control", "AUC", "chance: 0.5", "meaning"], rows=rows)
    return Section("Controls", Markup(table), f"With {result.headline}, where a model is asked.")


def _ladder(found: DecidedSet) -> Section:
    rungs = ", ".join(f"{count} on rung {n}" for n, count in enumerate(found.per_rung, 1))
    rows = [
        ["queries per image, mean", f"{found.queries:.1f}"],
        ["images decided", rungs],
        ["accuracy", f"{found.asr:.3f}"],
        ["members flagged", _interval(found.realised_tpr)],
        ["non-members flagged", _interval(found.realised_fpr)],
    ]
    table = _TABLE.render(head=["ladder", ""], rows=rows)
    lead = "CLiD with few queries first; only undecided images are asked about again."
    return Section("Decided image by image", Markup(table), lead)


def _dataset(result: AuditResult) -> Section:
    rows = [
        [
            title,
            f"{test.p_value:.3f}",
            f"{test.direction:+.2f}",
            "–" if test.p_base is None else f"{test.p_base:.3f}",
            f"{test.auc:.3f}",
            f"{test.p_null:.3f}",
            ", ".join(f"{size}: {p:.2g}" for size, p in test.curve) or "–",
        ]
        for title, test in result.dataset.items()
    ]
    head = ["features", "p, whichever way", "direction", "p on base", "AUC", "p, nothing to find",
            "images of each: p (approx.)"]  # fmt: skip
    said = [
        Markup("<p>With {}: {}</p>").format(title, test.sentence)
        for title, test in result.dataset.items()
    ]
    table = Markup(_TABLE.render(head=head, rows=rows))
    lead = "Was the collection as a whole used? Permutation test over cross-validated classifiers."
    return Section("The set as a whole", Markup("").join([*said, table]), lead)


def _path(curve: PathCurve) -> Section:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2))
    axes = figure.subplots()
    shares = [level.share for level in curve.levels]
    areas = np.array([level.auc for level in curve.levels])
    margin = 1.96 * np.array([level.error for level in curve.levels])
    axes.fill_between(shares, areas - margin, areas + margin, alpha=0.2, linewidth=0)
    axes.plot(shares, areas, marker="o", markersize=4, label="target")
    before = [level.base for level in curve.levels]
    if None not in before:
        axes.plot(shares, before, color="grey", marker=".", label="base")  # type: ignore[arg-type]
    axes.axhline(0.5, color="grey", linewidth=0.8)
    axes.axvline(
        curve.predicted, color="grey", linewidth=0.8, linestyle=":", label="predicted peak"
    )
    axes.set(xlim=(0, 1), xlabel="from picture (0) to noise (1)", ylabel="AUC of the loss")
    axes.legend(fontsize=8, frameon=False)
    lead = (
        "AUC of the denoising loss by noise level s = b / (a + b), with 95 % intervals; the "
        "predicted peak is that of arXiv 2606.07271's closed form, from the latents' covariance."
    )
    return Section("Where on the path members are told", _svg(figure), lead)


def _left_out(result: AuditResult) -> Section:
    items = Markup("").join(Markup("<li>{}</li>").format(each) for each in result.left_out)
    lead = "Parts of an audit that scores alone do not allow, and what they need."
    return Section("Left out", Markup("<ul>{}</ul>").format(items), lead)


def _care(result: AuditResult) -> Section:
    sentences = [
        *result.warnings,
        "Intervals are about the choice of images. They do not hold the variation between "
        "training runs, which only several target models can show.",
    ]
    return cautions(sentences)


def _words(result: AuditResult) -> Section:
    """What the columns and words above mean, those that this page uses."""
    has = {
        "always": True,
        "pictures": bool(result.members),
        "asked": _asked(result),
        "blind": bool(result.blind),
        "dataset": bool(result.dataset),
        "ladder": bool(result.ladder),
    }
    rows = [
        [word, meaning.format(tuned_on=result.tuned_on)]
        for word, meaning, shown in WORDS
        if has[shown]
    ]
    return Section(
        "What the words mean", Markup(_TABLE.render(head=["word", "meaning"], rows=rows))
    )


def _curves(result: AuditResult) -> Markup:
    from matplotlib.figure import Figure

    names = sorted(
        result.judged, key=lambda n: (n != result.headline, -result.judged[n].plain.auc.value)
    )
    figure = Figure(figsize=(6.4, 4.4))
    axes = figure.subplots()
    head = result.judged[result.headline].plain
    floor = 1 / max(head.n_holdouts, head.n_members) / 2
    for name in names[:CURVES]:
        judged = result.judged[name]
        fpr, tpr = _thinned(*roc(*judged.scores), floor)
        axes.step(
            np.maximum(fpr, floor),
            np.maximum(tpr, floor),
            where="post",
            label=f"{name}  {judged.plain.auc.value:.3f}",
        )
    axes.plot([floor, 1], [floor, 1], color="grey", linewidth=0.8)
    axes.set(
        xscale="log", yscale="log", xlim=(floor, 1.05), ylim=(floor, 1.05),
        xlabel="share of non-members accused", ylabel="share of members caught",
    )  # fmt: skip
    axes.legend(title="score, AUC", fontsize=8, frameon=False)
    return _svg(figure)


def _thinned(fpr: np.ndarray, tpr: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Of a curve with more points than a plot can show, those nearest to equal steps of the
    logarithm of either rate."""
    if len(fpr) <= POINTS:
        return fpr, tpr
    steps = np.geomspace(floor, 1, POINTS // 10)
    places = [np.searchsorted(rate, steps).clip(max=len(rate) - 1) for rate in (fpr, tpr)]
    kept = np.unique(np.concatenate([[0], *places, [len(fpr) - 1]]))
    return fpr[kept], tpr[kept]


def _histogram(head: Judged) -> Markup:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2))
    axes = figure.subplots()
    low, high = np.quantile(np.concatenate(head.scores), (0.01, 0.99))
    bins = np.linspace(low, high, 40).tolist()
    for scores, name in zip(head.scores, ("members", "non-members"), strict=True):
        axes.hist(np.clip(scores, low, high), bins, alpha=0.55, density=True, label=name)
    axes.axvline(head.plain.tau, color="grey", linewidth=1)
    axes.set(xlabel="score, high = member", yticks=[])
    axes.legend(frameon=False)
    return _svg(figure)


def _svg(figure: object) -> Markup:
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "audit"}):
        figure.savefig(  # type: ignore[attr-defined]
            buffer, format="svg", bbox_inches="tight", metadata={"Date": None}
        )
    drawing = buffer.getvalue()
    return Markup('<div class="drawing">{}</div>').format(Markup(drawing[drawing.index("<svg") :]))


def _interval(value: Interval | Sequence[float]) -> str:
    middle, low, high = value
    return f"{middle:.3f} ({low:.3f}–{high:.3f})" if np.isfinite(middle) else "refused"
