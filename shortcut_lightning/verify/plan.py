"""What a verification will do and about how long it takes, before anything is run."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from shortcut_lightning.pocket import BUILT_IN
from shortcut_lightning.verify.effects import least_pictures
from shortcut_lightning.verify.recipe import Recipe
from shortcut_lightning.verify.routes import COLUMNS, Matrix

_START = 10.0  # seconds that a run takes to begin and to write down what it found


class Speed(NamedTuple):
    """Seconds of a step and of a picture, and where they were measured."""

    step: float
    picture: float
    where: str


# Of one core of a machine from 2023, batches of 4 + 4 pictures.
_POCKET = Speed(0.25, 0.6, "one core of a usual machine; a machine with other work takes longer")


def require_enough(recipe: Recipe, matrix: Matrix) -> None:
    """Raises ValueError where so few pictures are made that no effect, however large, is shown."""
    comparisons = len(matrix.routes) * recipe.measures * 2  # with clean and with noise
    each, needed = recipe.pictures * matrix.seeds, least_pictures(comparisons)
    if each >= needed:
        return
    sampled = recipe.data["evaluation"]
    enough = math.ceil(needed / (max(1, len(sampled["prompts"])) * matrix.seeds))
    raise ValueError(
        f"data.evaluation.images_per_prompt is {sampled['images_per_prompt']}, which makes {each} "
        f"pictures of each case; none of the {comparisons} comparisons shows an effect with fewer "
        f"than {needed}: give {enough} or more."
    )


def plan(
    recipe: Recipe,
    matrix: Matrix,
    photographs: int,
    done: Sequence[float],
    speed: Speed | None,
    workers: int,
) -> str:
    """The plan, in lines.

    Args:
        recipe: What is asked.
        matrix: The runs.
        photographs: How many there are.
        done: Seconds of each finished run.
        speed: What is known of the model's speed on this machine.
        workers: Processes at work.
    """
    runs = matrix.trainings + matrix.seeds
    steps = f"{recipe.steps} steps" if recipe.steps > 0 else "the recipe's length"
    lines = [
        f"protection   {recipe.protection} at {recipe.epsilon:g}/255, made against {recipe.model}",
        f"photographs  {photographs} of {recipe.source}; protected and noisy copies are made once",
        f"learnt from  {', '.join(COLUMNS)}; each {'; '.join(r.name for r in matrix.routes)}",
        f"trainings    {matrix.trainings} of {steps}, {recipe.pictures} pictures of each; "
        f"{_learners(recipe, matrix)}",
        f"besides      {matrix.seeds} x the untouched model, asked for the same pictures",
    ]
    lines += [f"not tried    {what}" for what in matrix.left_out]
    lines += [f"finished     {len(done)} of {runs} runs"] if done else []
    lines += [f"time         {_time(recipe, runs, done, speed, workers)}"]
    return "\n".join(lines)


def known_speed(recipe: Recipe, output_dir: Path) -> Speed | None:
    """What the newest run of this model in `output_dir` measured; for the built-in ones without a
    GPU a usual number; else None. Speeds are measured by the callback Throughput."""
    import torch

    files = sorted(output_dir.glob("*/version_*/report.json"), key=lambda f: -f.stat().st_mtime)
    for file in files:
        try:
            report = json.loads(file.read_text("utf-8"))
            same = report["model"].split()[:1] == [Path(recipe.model).name]
            made = sum(n for kind, n in report["counts"].items() if kind == "tuned images")
            if same and made and report["throughput"].get("steps/s"):
                step = 1 / report["throughput"]["steps/s"]
                return Speed(step, report["seconds"]["sample"] / made, str(file.parent))
        except (ValueError, KeyError, AttributeError, TypeError):  # not ours, or cut off
            continue
    return _POCKET if recipe.model in BUILT_IN and not torch.cuda.is_available() else None


def _learners(recipe: Recipe, matrix: Matrix) -> str:
    others = [route.learner for route in matrix.routes if route.learner]
    each = len(COLUMNS) * matrix.seeds
    said = [f"{matrix.trainings - len(others) * each} of {recipe.model}"]
    return " and ".join([*said, *(f"{each} of {name}" for name in others)])


def _time(
    recipe: Recipe, runs: int, done: Sequence[float], speed: Speed | None, workers: int
) -> str:
    left = runs - len(done)
    by = f"with {workers} process{'es' if workers > 1 else ''} at work"
    known = [seconds for seconds in done if math.isfinite(seconds)]
    if known:
        seconds = sum(known) / len(known) * left / workers
        return f"about {_minutes(seconds)} to go {by}, as the finished runs went"
    if speed is None or recipe.steps <= 0:
        total = f"{left * recipe.steps} steps and " if recipe.steps > 0 else ""
        return (
            f"not known: {total}{left * recipe.pictures} pictures in all, and no run of "
            f"{recipe.model} on this machine has said how long one takes"
        )
    of_each = _START + recipe.steps * speed.step + recipe.pictures * speed.picture
    return (
        f"about {_minutes(left * of_each / workers)} {by} and the protection besides, at "
        f"{speed.step:.2g} s a step ({speed.where})"
    )


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
