"""Our attacks against the loops of published scripts, side by side in one process.

    python tests/benchmarks/attack_steps.py [--model pocket] [--steps 12] [--rounds 3]

The plain loops are those the tests hold ours against (tests/attacks/naive.py), run as the scripts
do: prompts are embedded in every step, gradients are computed for the UNet's and the text encoder's
weights and thrown away, models are copied at every call that trains, images are encoded in every
training step. Same model, images, draws and steps; rounds alternate, so that a slow minute hits
both; on a CPU the seconds are those of this process alone. Ends with the share of equal pixels,
which says that the same thing was computed, and ASPL's time by stage.
"""

# ruff: noqa: E402 -- the plain loops and the memory's reading lie beside this file

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).parents[1] / "attacks"), str(Path(__file__).parent)]
import naive
from training_step import peak_mib, reset_peak, synchronize

from shortcut_lightning import backbones
from shortcut_lightning.attacks import ASPL, AdvDM, SurrogateTraining, aspl
from shortcut_lightning.attacks.base import Attack
from shortcut_lightning.attacks.surrogate import Surrogate
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.freezing import frozen
from shortcut_lightning.pocket import world

PROMPT, CLASS, SEED = "a photo of sks person", "a photo of a person", 3
SIZE, EPSILON = 0.6375, 11.0  # of a step and of the ball, in /255


class Stages:
    """Seconds by stage."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        # On a CPU the process's own seconds, which other programs do not lengthen.
        clock = time.perf_counter if self.device.type == "cuda" else time.process_time
        synchronize(self.device)
        start = clock()
        yield
        synchronize(self.device)
        self.seconds[name] += clock() - start

    def wrapped(self, name: str, call: Callable) -> Callable:
        def timed(*args: object, **kwargs: object) -> object:
            with self.timed(name):
                return call(*args, **kwargs)

        return timed


def plain_steps(model: Backbone, x0: Tensor, x: Tensor, steps: int, g: torch.Generator) -> Tensor:
    """The scripts' inner loop: everything has a gradient, which is cleared before each step."""
    model.unet.requires_grad_(True)
    model.text_encoder.requires_grad_(True)

    def objective(x: Tensor) -> Tensor:
        model.unet.zero_grad()
        model.text_encoder.zero_grad()
        return naive.loss(model, x, [PROMPT] * len(x), g)

    return naive.pgd(x0, x, steps, 2 * SIZE / 255, 2 * EPSILON / 255, objective)


def plain_advdm(args: argparse.Namespace, model: Backbone, images: Tensor, _: Stages) -> Tensor:
    x0 = naive.to_model(images)
    g = torch.Generator().manual_seed(SEED)
    return naive.from_model(plain_steps(model, x0, x0, args.steps, g))


def plain_aspl(args: argparse.Namespace, model: Backbone, images: Tensor, at: Stages) -> Tensor:
    g, x0 = torch.Generator().manual_seed(SEED), naive.to_model(images)
    with at.timed("class images"):
        classes = naive.class_images(model, CLASS, args.class_images, g)

    def train(f: Backbone, x: Tensor) -> Backbone:
        said = [PROMPT] * len(x)
        return naive.dreambooth(f, x, said, classes, CLASS, 3, args.learning_rate, g)

    x, f = x0, model
    for _ in range(args.aspl_rounds):
        with at.timed("train on clean"):
            surrogate = train(f, x0)
        with at.timed("steps of the images"):
            x = plain_steps(surrogate, x0, x, 6, g)
        with at.timed("train on perturbed"):
            f = train(f, x)
    return naive.from_model(x)


def run(attack: Attack, model: Backbone, images: Tensor) -> Tensor:
    """Without the base class's rounding, to compare with the plain loop."""
    with frozen(model), torch.enable_grad():
        g = torch.Generator().manual_seed(SEED)
        return attack.run(images.clone(), model, [PROMPT] * len(images), g).detach()


def our_advdm(args: argparse.Namespace, model: Backbone, images: Tensor, _: Stages) -> Tensor:
    attack = AdvDM(EPSILON, step_size=SIZE, steps=args.steps, start_randomly=False)
    return run(attack, model, images)


def our_aspl(args: argparse.Namespace, model: Backbone, images: Tensor, at: Stages) -> Tensor:
    training = SurrogateTraining(
        learning_rate=args.learning_rate,
        class_prompt=CLASS,
        num_class_images=args.class_images,
        order="ref",
    )
    attack = ASPL(EPSILON, step_size=SIZE, rounds=args.aspl_rounds, training=training)
    usual = Surrogate.train, Surrogate._class_images, aspl.sign_pgd
    calls = iter(["train on clean", "train on perturbed"] * args.aspl_rounds)

    def train(*given: object) -> object:
        return at.wrapped(next(calls), usual[0])(*given)

    Surrogate.train = train  # type: ignore[method-assign,assignment]
    Surrogate._class_images = at.wrapped("class images", usual[1])  # type: ignore[method-assign]
    aspl.sign_pgd = at.wrapped("steps of the images", usual[2])  # type: ignore[attr-defined]
    try:
        return run(attack, model, images)
    finally:
        Surrogate.train, Surrogate._class_images = usual[:2]  # type: ignore[method-assign]
        aspl.sign_pgd = usual[2]  # type: ignore[attr-defined]


WAYS: dict[str, dict[str, Callable]] = {
    "gradient steps": {"plain": plain_advdm, "ours": our_advdm},
    "ASPL": {"plain": plain_aspl, "ours": our_aspl},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--aspl_rounds", type=int, default=2)
    parser.add_argument("--class_images", type=int, default=4)
    parser.add_argument("--learning_rate", type=float, default=1e-5)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = backbones.load(args.model).to(device).eval()
    rows = [np.array(world.draw(0, number).image) for number in range(args.images)]
    images = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).to(device) / 255
    side = model.resolution
    images = torch.nn.functional.interpolate(images, (side, side), mode="area")

    settings = vars(args) | {"device": str(device), "threads": torch.get_num_threads()}
    print(json.dumps(settings | {"cpus": os.cpu_count()}))  # noqa: T201
    for task, ways in WAYS.items():
        seconds: dict[str, list[float]] = defaultdict(list)
        stages: dict[str, Stages] = {}
        memory: dict[str, float] = defaultdict(float)
        made: dict[str, Tensor] = {}
        short = argparse.Namespace(**vars(args) | {"steps": 1, "aspl_rounds": 1})
        for way in ways.values():  # warm up
            way(short, model, images, Stages(device))
        for _ in range(args.rounds):
            for name, way in ways.items():
                model.requires_grad_(False).zero_grad()
                reset_peak(device)
                stages[name] = at = Stages(device)
                with at.timed("all"):
                    made[name] = way(args, model, images, at)
                # Sampling class images is the same call for both.
                seconds[name].append(at.seconds["all"] - at.seconds["class images"])
                memory[name] = max(memory[name], peak_mib(device))
        steps = args.steps if task == "gradient steps" else 6 * args.aspl_rounds
        medians = {name: float(np.median(times)) for name, times in seconds.items()}
        same = (made["plain"] - made["ours"]).abs() * 255 < 0.05
        result = {
            name: {
                "steps_per_second": round(steps / medians[name], 2),
                # Round by round, since both ways of a round meet the same neighbours.
                "speed_over_plain": round(
                    float(np.median(np.divide(seconds["plain"], seconds[name]))), 2
                ),
                "peak_mib": round(memory[name]),
                "seconds_by_stage": {k: round(v, 2) for k, v in stages[name].seconds.items()},
            }
            for name in ways
        }
        equal = {"equal_pixels": round(same.float().mean().item(), 4)}
        print(json.dumps({task: result | equal}, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
