"""What SecMI's difference of two predictions consists of: the step in x, and the step in t.

    python tests/benchmarks/secmi_split.py --checkpoints RUN/checkpoints/step=*.ckpt \\
        --members FOLDER --nonmembers FOLDER [--images 60] [--model pocket]

SecMI's x_s - psi is a constant times eps(x_u, u) - eps(x_s, s), u = s + 10 (see `secmi.py`). Here
that total is split into dx = eps(x_u, u) - eps(x_s, u) and dt = eps(x_s, u) - eps(x_s, s). For the
model before training and for each checkpoint it prints the AUC of the mean square of each, low =
member, and the cosine between dx and dt: below zero they cancel in part.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shortcut_lightning.audit.loading import AuditedModel
from shortcut_lightning.membership import Engine, Score, read_pictures
from shortcut_lightning.membership.probe import Probe
from shortcut_lightning.membership.roc import auc
from shortcut_lightning.membership.secmi import _move

STEP = 10
LAST = 100  # SecMI's t_sec


def main() -> None:
    """Runs and reports."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--checkpoints", type=Path, nargs="*", default=[])
    options.add_argument("--members", type=Path, required=True)
    options.add_argument("--nonmembers", type=Path, required=True)
    options.add_argument("--images", type=int, default=60, help="Of each set.")
    options.add_argument("--model", default="pocket", help="What the run started from.")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    say(f"{'model':16} {'total':>6} {'dx':>6} {'dt':>6} {'cosine':>7}   (AUC, low = member)")
    for checkpoint in ["", *arguments.checkpoints]:
        model = AuditedModel(arguments.model, checkpoint=str(checkpoint)).load()
        inside, outside = (
            read_pictures(folder, key, model.resolution)[0][: arguments.images]
            for folder, key in (
                (arguments.members, "members"),
                (arguments.nonmembers, "nonmembers"),
            )
        )
        engine = Engine({"model": model}, progress=False)
        rows = engine.measure([*inside, *outside], {"parts": Parts()}, ["model"])["parts"]["model"]
        found = [np.stack([rows[each.row] for each in some]) for some in (inside, outside)]
        areas = [auc(-found[0][:, column], -found[1][:, column]) for column in range(3)]
        cosine = np.concatenate(found)[:, 3].mean()
        name = Path(checkpoint).stem if checkpoint else "before training"
        say(f"{name:16} " + " ".join(f"{each:6.2f}" for each in areas) + f" {cosine:7.2f}")


class Parts(Score):
    """Mean squares of the total, dx and dt, and the cosine between dx and dt."""

    queries = LAST // STEP + 3
    columns = ("total", "dx", "dt", "cosine")
    needs_float32 = True

    def measure(self, probe: Probe) -> Tensor:
        """(B, 4)."""
        x = probe.latents
        for step in range(0, LAST - STEP, STEP):
            x = _move(probe, x, step, step + STEP)
        further = _move(probe, x, LAST - STEP, LAST)
        first = probe.epsilon(x, LAST - STEP, probe.caption)
        between = probe.epsilon(x, LAST, probe.caption)
        second = probe.epsilon(further, LAST, probe.caption)
        parts = [(a - b).flatten(1) for a, b in ((second, first), (second, between))]
        parts.append((between - first).flatten(1))
        squares = [each.square().mean(1) for each in parts]
        return torch.stack([*squares, torch.cosine_similarity(parts[1], parts[2])], 1)


def say(line: str) -> None:
    """A line of the report."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
