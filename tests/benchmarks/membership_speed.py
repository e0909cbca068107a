"""CLiD at 15 queries, images per second: this package against the published loop.

    python tests/benchmarks/membership_speed.py [--images 32] [--threads 2]
    python tests/benchmarks/membership_speed.py --scores RECIPE --json FILE

The loop is written down anew from its description: one image at a time, and for each of its five
captions one text encoding and one call of the UNet with three timesteps. Both run on the same
model, in turns, and must give the same features to 1e-5; bfloat16, which a processor may compute
faster, keeps their order instead. Seconds of the processor, summed over threads, are told beside
those of the clock: on a busy machine they are the fairer ones. `--scores` tells how long each score
of an audit takes, for itself.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor

from shortcut_lightning import backbones, draws
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.membership import CLiD, Engine, Picture, picture
from shortcut_lightning.membership.reducers import clip
from shortcut_lightning.pocket import world

TIMESTEPS = (440, 450, 460)
ROUNDS = 3


def main() -> None:
    """Runs and reports."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=32)
    options.add_argument("--batch_size", type=int, default=64)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--scores", type=Path, help="Time the scores of this recipe instead.")
    options.add_argument("--json", type=Path, help="Where their seconds per image go.")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    model = backbones.load("pocket").eval()
    pictures = drawn(arguments.images)
    if arguments.scores:
        each_score(model, pictures, arguments)
    else:
        both_loops(model, pictures, arguments.batch_size)


def both_loops(model: Backbone, pictures: list[Picture], batch_size: int) -> None:
    """The published loop, ours, and ours in bfloat16, in turns."""
    loops: dict[str, Callable[[list[Picture]], Tensor]] = {
        "published": lambda some: published(model, some),
        "ours": lambda some: ours(model, some, batch_size),
        "ours, bf16": lambda some: ours(model, some, batch_size, bf16=True),
    }
    clock: dict[str, list[float]] = {name: [] for name in loops}
    processor: dict[str, list[float]] = {name: [] for name in loops}
    features: dict[str, Tensor] = {}
    for loop in loops.values():
        loop(pictures[:4])  # warm
    for _ in range(ROUNDS):
        for name, loop in loops.items():
            started, spent = time.perf_counter(), time.process_time()
            features[name] = loop(pictures)
            clock[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - spent)
    count = len(pictures)
    say(f"{'':11} images/s  speed-up  processor ms/image  speed-up   (best of {ROUNDS})")
    for name in loops:
        first, second = min(clock[name]), min(processor[name])
        say(
            f"{name:11} {count / first:8.2f}  {min(clock['published']) / first:8.2f}  "
            f"{1000 * second / count:18.0f}  {min(processor['published']) / second:8.2f}"
        )
    difference = float((features["published"] - features["ours"]).abs().max())
    say(f"largest difference of a feature in float32: {difference:.1e}")
    order = [
        spearmanr(features["published"][:, i], features["ours, bf16"][:, i]).statistic
        for i in range(5)
    ]
    say("rank correlation in bfloat16: " + ", ".join(f"{each:.4f}" for each in order))
    if difference > 1e-5:
        raise SystemExit("the scores differ")


def each_score(model: Backbone, pictures: list[Picture], arguments: argparse.Namespace) -> None:
    """Processor seconds per image of every score of a recipe, without what scores could share."""
    from shortcut_lightning.cli.audit import audit_parser

    parser = audit_parser()
    told = ["--config", str(arguments.scores), "--audit.target.pretrained_model_name_or_path"]
    read = parser.parse_args([*told, "pocket", "--audit.members=a", "--audit.nonmembers=b"])
    scores = parser.instantiate(read).audit.scores
    seconds = {}
    for name, score in scores.items():
        engine = Engine(
            {"model": model}, batch_size=arguments.batch_size, share=False, progress=False
        )
        started = time.process_time()
        engine.measure(pictures, {name: score}, ["model"])
        seconds[name] = (time.process_time() - started) / len(pictures)
        say(f"{name:30} {score.queries:4} queries {1000 * seconds[name]:8.0f} ms an image")
    if arguments.json:
        arguments.json.write_text(json.dumps(seconds, indent=1) + "\n")


def drawn(count: int) -> list[Picture]:
    """Images of the procedural world with their captions."""
    found = (world.draw(1, i) for i in range(count))
    return [
        picture(f"{i}", d.caption, torch.from_numpy(d.image).permute(2, 0, 1) / 255, 64)
        for i, d in enumerate(found)
    ]


def ours(model: Backbone, pictures: list[Picture], batch_size: int, bf16: bool = False) -> Tensor:
    """(N, 5) features by the engine."""
    engine = Engine({"model": model}, batch_size=batch_size, progress=False, bf16=bf16)
    rows = engine.measure(pictures, {"CLiD": CLiD()}, ["model"])["CLiD"]["model"]
    return torch.stack([torch.from_numpy(rows[each.row]) for each in pictures])


@torch.no_grad()
def published(model: Backbone, pictures: list[Picture]) -> Tensor:
    """(N, 5) features by the loop, with the engine's noise."""
    unet, vae, text, tokenizer = model.unet, model.vae, model.text_encoder, model.tokenizer
    steps = torch.tensor(TIMESTEPS)
    features = []
    for each in pictures:
        key = torch.tensor([each.key])
        posterior = vae.encode(each.pixels()[None] * 2 - 1).latent_dist
        noise = draws.normal(posterior.mean.shape[1:], 0, "membership posterior image", key)
        latent = (posterior.mean + posterior.std * noise) * vae.config.scaling_factor
        noises = torch.cat(
            [draws.normal(latent.shape[1:], 0, f"membership noise t{t} #0", key) for t in TIMESTEPS]
        )
        noisy = model.add_noise(latent.expand(3, -1, -1, -1), noises, steps)
        losses = []
        for caption in (each.caption, *clip(each.caption), ""):
            ids = tokenizer(
                caption,
                padding="max_length",
                truncation=True,
                max_length=text.config.max_position_embeddings,
                return_tensors="pt",
            ).input_ids
            hidden = text(ids)[0].expand(3, -1, -1)
            losses.append((unet(noisy, steps, hidden).sample - noises).square().mean())
        features.append([losses[0], *(loss - losses[0] for loss in losses[1:])])
    return torch.tensor(features, dtype=torch.float64)


def say(line: str) -> None:
    """A line of the report."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
