"""What a cell looks like: a strip of small pictures that is kept beside the rows of a matrix."""

import hashlib
from pathlib import Path

from PIL import Image

from shortcut_lightning.bench.matrix import Cell
from shortcut_lightning.bench.runner import Runner
from shortcut_lightning.files.atomic import atomic

FOLDER = "pictures"
SIDE, LEARNT = 64, 3  # pixels of a picture; how many sampled ones
STRIP = "photograph.png"  # in a run folder: the first photograph given, published, learnt from


def picture_of(rows: Path, arm: str) -> Path:
    """Where the strip of an arm lies in a folder of rows."""
    return rows / FOLDER / f"{hashlib.sha256(arm.encode()).hexdigest()[:12]}.jpg"


def keep_pictures(runner: Runner, rows: Path) -> int:
    """Writes a strip for each arm, of its first finished subject that has pictures; those that are
    there stay. Returns how many were written."""
    written, seen = 0, set()
    for cell, report in runner.reports():
        target = picture_of(rows, cell.arm)
        if cell.arm in seen or target.exists():
            continue
        if strip := _strip(runner, cell, report.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic(target) as half:
                strip.save(half, "JPEG", quality=85, subsampling=0)
            seen.add(cell.arm)
            written += 1
    return written


def _strip(runner: Runner, cell: Cell, run: Path) -> Image.Image | None:
    """Given, published, learnt from, and what was learnt; None where the run kept no samples.

    The evaluation of another training with other words saw the same photographs."""
    trained = cell._replace(arm=cell.trained_as).folder(runner.root)
    photographs = [run / STRIP, *sorted(trained.glob(f"version_*/{STRIP}"))]
    first = next((path for path in photographs if path.is_file()), None)
    samples = sorted((run / "samples" / "tuned").glob("*.png"))[:LEARNT]
    if not first or not samples:
        return None
    with Image.open(first) as opened:
        before = opened.convert("RGB")
    before = before.resize((SIDE * before.width // before.height, SIDE))
    canvas = Image.new("RGB", (before.width + SIDE * len(samples), SIDE))
    canvas.paste(before, (0, 0))
    for number, path in enumerate(samples):
        with Image.open(path) as opened:
            canvas.paste(
                opened.convert("RGB").resize((SIDE, SIDE)), (before.width + SIDE * number, 0)
            )
    return canvas
