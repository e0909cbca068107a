"""CLiD at 15 queries, images per second: this package against the published loop.

    python tests/benchmarks/membership_speed.py [--images 32] [--memory 200 2000]

The loop is written down anew from its description: one image at a time, and for each of its five
captions one text encoding and one call of the UNet with three timesteps. Both run on the same
model, in turns, and must give the same scores. `--memory` shows the peak memory of the process
after so many images.
"""

import argparse
import resource
import sys
import time

import torch
from torch import Tensor

from shortcut_lightning import backbones, draws
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.membership import CLiD, Engine, Picture, picture
from shortcut_lightning.membership.reducers import clip
from shortcut_lightning.pocket import WEIGHTS, world

TIMESTEPS = (440, 450, 460)
ROUNDS = 3


def main() -> None:
    """Runs and reports."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=32)
    options.add_argument("--batch_size", type=int, default=64)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--memory", type=int, nargs="*", default=[])
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load()
    pictures = drawn(arguments.images)
    published(model, pictures[:2])  # warm
    seconds: dict[str, list[float]] = {"published": [], "ours": []}
    for _ in range(ROUNDS):
        started = time.perf_counter()
        expected = published(model, pictures)
        seconds["published"].append(time.perf_counter() - started)
        started = time.perf_counter()
        found = ours(model, pictures, arguments.batch_size)
        seconds["ours"].append(time.perf_counter() - started)
    difference = float((expected - found).abs().max())
    for name, times in seconds.items():
        say(f"{name:10} {len(pictures) / min(times):7.2f} images/s  (best of {ROUNDS})")
    say(f"speed-up   {min(seconds['published']) / min(seconds['ours']):7.2f}")
    say(f"largest difference of a feature: {difference:.1e}")
    if difference > 1e-5:
        raise SystemExit("the scores differ")
    for count in arguments.memory:
        ours(model, drawn(count), arguments.batch_size)
        say(f"peak memory after {count} images: {peak():.0f} MB")


def load() -> Backbone:
    """The shipped pocket model, or while there is none its untrained like."""
    if (WEIGHTS / "model_index.json").is_file():
        return backbones.load("pocket").eval()
    import tempfile
    from pathlib import Path

    from diffusers import AutoencoderKL

    from shortcut_lightning.pocket import autoencoder, family

    torch.manual_seed(0)
    folder = Path(tempfile.mkdtemp())
    vae = getattr(autoencoder, "build_vae", None)
    network = vae() if vae else AutoencoderKL(
        block_out_channels=(32, 64, 64), latent_channels=4, norm_num_groups=8, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )  # fmt: skip
    network.save_pretrained(folder / "vae")
    family.save_family(folder, family.build_unet(), family.build_text_encoder())
    say("(untrained model of the pocket's size)")
    return backbones.load(str(folder)).eval()


def drawn(count: int) -> list[Picture]:
    """Images of the procedural world with their captions."""
    found = (world.draw(1, i) for i in range(count))
    return [
        picture(f"{i}", d.caption, torch.from_numpy(d.image).permute(2, 0, 1) / 255, 64)
        for i, d in enumerate(found)
    ]


def ours(model: Backbone, pictures: list[Picture], batch_size: int) -> Tensor:
    """(N, 5) features by the engine."""
    engine = Engine({"model": model}, batch_size=batch_size, progress=False)
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


def peak() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def say(line: str) -> None:
    """A line of the report."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
