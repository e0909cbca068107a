"""What three defects of published attacks change, as measured on the pocket.

python tests/benchmarks/reference_defects.py --subjects 100 101 102

Each attack runs with and without its defect, everything else alike (the presets of
configs/attacks/pocket at a radius of 16/255, four photographs of each subject):
- ASPL's surrogate in bfloat16 on the first images only, at the pocket's and the published rate;
- SimAC's feature loss without a gradient;
- MetaCloak's surrogates fed instance images in [0, 255].

Printed, as JSON: `objective`, the denoising error of the pretrained model on what the attack made,
and `poisoned`, the error on the subject's held-out photographs of a model then fine-tuned on it,
each minus the same without an attack; means over the subjects and every subject's own. First, what
share of a surrogate's weights moves in three steps.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml
from torch import Tensor

from shortcut_lightning import attacks, backbones, draws
from shortcut_lightning.attacks import Attack, NoAttack, SurrogateTraining
from shortcut_lightning.attacks.denoising import denoise_latents
from shortcut_lightning.attacks.gradient import bfloat16
from shortcut_lightning.attacks.surrogate import Surrogate
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.data import loading
from shortcut_lightning.files.cache import OneProcess, cache_folder
from shortcut_lightning.freezing import frozen
from shortcut_lightning.prompts import Prompts

PRESETS = Path(__file__).parents[2] / "configs" / "attacks" / "pocket"
PROMPT, RADIUS = "a photo of sks person", 16.0
BF16 = {"dtype": "bf16_ref", "order": "ref"}
ARMS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ASPL": ("aspl", {}, {}),
    "ASPL, bf16 surrogate": ("aspl", {}, BF16),
    "ASPL at 5e-7": ("aspl", {}, {"learning_rate": 5e-7}),
    "ASPL at 5e-7, bf16 surrogate": ("aspl", {}, {"learning_rate": 5e-7} | BF16),
    "SimAC": ("simac", {}, {}),
    "SimAC, feature loss detached": ("simac", {"feature_weight": 0.0}, {}),
    "MetaCloak": ("metacloak", {}, {}),
    "MetaCloak, surrogates unnormalised": ("metacloak", {"unnormalised_surrogates": True}, {}),
}
VICTIM = SurrogateTraining(
    learning_rate=1e-4, class_prompt="a photo of a person", num_class_images=0
)
NOISE_LEVELS = 8


def preset(name: str, changes: dict[str, Any], training: dict[str, Any]) -> Attack:
    """The pocket's preset with some settings changed."""
    found = yaml.safe_load((PRESETS / f"{name}.yaml").read_text())
    settings = found["init_args"] | {"epsilon": RADIUS} | changes
    settings["training"] = SurrogateTraining(**settings["training"] | training)
    kind = getattr(attacks, found["class_path"].rpartition(".")[2])
    made: Attack = kind(**settings)
    return made


def photographs(subject: int, side: int) -> tuple[Tensor, Tensor]:
    """A generated subject's instance images and held-out ones."""
    folders = loading.subject_folders(f"pocket:{subject}", "", cache_folder(), OneProcess())
    both = []
    for folder in folders:
        assert folder is not None
        examples = loading.load_examples(
            folder, "instance_data_dir", Prompts(PROMPT), captions=False, side=side, crop=True
        )
        both.append(torch.stack([example.image for example in examples]))
    return both[0], both[1]


@torch.no_grad()
def error(model: Backbone, images: Tensor) -> float:
    """The denoising error at evenly spread noise levels, with the same draws for every model."""
    chance = torch.Generator().manual_seed(0)
    posterior, said = model.encode(images), model.embed([PROMPT] * len(images))
    found = []
    for level in range(NOISE_LEVELS):
        noise = torch.randn(posterior.mean.shape, generator=chance).to(images.device)
        step = int((level + 0.5) / NOISE_LEVELS * model.num_train_timesteps)
        steps = torch.full((len(images),), step)
        latents = posterior.sample(noise)
        found.append(denoise_latents(model, latents, said, chance, steps).losses.mean().item())
    return fmean(found)


def tuned(model: Backbone, images: Tensor, steps: int) -> Backbone:
    """A copy after DreamBooth on these images."""
    chance = draws.generator(0, "victim", 0)
    victim = Surrogate(model, VICTIM, [PROMPT] * len(images), images, chance)
    victim.train(victim.encode(images), steps, batch_size=2)
    return victim.model


def moved(model: Backbone, images: Tensor, rate: float, defect: dict[str, Any]) -> float:
    """The share of a surrogate's weights that three steps change."""
    training = SurrogateTraining(learning_rate=rate, num_class_images=0, **defect)
    surrogate = Surrogate(model, training, [PROMPT] * len(images), images, torch.Generator())
    before = surrogate.weights()
    with bfloat16(images, training.dtype == "bf16_ref"):
        surrogate.train(surrogate.encode(images), 3)
    changed = sum(int((a != b).sum()) for a, b in zip(before, surrogate.weights(), strict=True))
    return changed / sum(each.numel() for each in before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--subjects", type=int, nargs="+", default=[100, 101, 102])
    parser.add_argument("--victim_steps", type=int, default=40)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = backbones.load(args.model).to(device).requires_grad_(False).eval()
    people = {s: [p.to(device) for p in photographs(s, model.resolution)] for s in args.subjects}
    images = people[args.subjects[0]][0]
    shares = {
        f"{rate:g}, {name}": round(moved(model, images, rate, defect), 4)
        for rate in (1e-4, 5e-7)
        for name, defect in (("fp32", {}), ("bf16_ref", BF16))
    }
    print(json.dumps({"share of weights that three steps move": shares}), flush=True)  # noqa: T201

    def effect(attack: Attack, subject: int) -> dict[str, float]:
        clean, held_out = people[subject]
        started = time.perf_counter()
        changed = attack(
            clean, model, [PROMPT] * len(clean), generator=draws.generator(0, "perturb", 0)
        )
        seconds = time.perf_counter() - started
        with frozen(model), torch.enable_grad():
            victim = tuned(model, changed, args.victim_steps)
        return {
            "objective": error(model, changed),
            "poisoned": error(victim, held_out),
            "seconds": seconds,
        }

    without = {subject: effect(NoAttack(), subject) for subject in args.subjects}
    for name, (file, changes, training) in ARMS.items():
        rows = [effect(preset(file, changes, training), subject) for subject in args.subjects]
        numbers: dict[str, Any] = {}
        for key in ("objective", "poisoned"):
            each = [
                row[key] - without[subject][key]
                for row, subject in zip(rows, args.subjects, strict=True)
            ]
            numbers[key] = round(fmean(each), 4)
            numbers[f"{key} of each"] = [round(value, 4) for value in each]
        numbers["seconds"] = round(fmean(row["seconds"] for row in rows), 1)
        print(json.dumps({name: numbers}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
