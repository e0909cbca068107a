"""Our training step against the loop of diffusers' DreamBooth example, side by side in one process.

    python tests/benchmarks/training_step.py [--model pocket] [--steps 60] [--rounds 3]

The plain loop is written down from the example's documented behaviour: a dataset that opens and
transforms image files on every access, tokenised prompts, VAE and text encoder run in every step,
instance and class images in one batch, AdamW, gradient clipping. Ours is `Trainer.fit` on
`DreamBooth` and `PersonalizationDataModule`, once with both caches off and once with both on. Same
model, images, batch and steps; rounds alternate, so that a slow minute hits all three. Peak memory
is that of a process for each, as what one leaves to the allocator counts for the next.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from shortcut_lightning import backbones
from shortcut_lightning.data import PersonalizationDataModule
from shortcut_lightning.modules import DreamBooth
from shortcut_lightning.modules.settings import Compute
from shortcut_lightning.pocket import world

PROMPTS = {"instance": "a photo of sks person", "class": "a photo of a person"}


class Files(Dataset):
    """Pairs of one instance and one class image, opened and transformed on every access."""

    def __init__(self, folders: dict[str, Path], side: int, tokenizer) -> None:
        self.paths = {kind: sorted(folder.glob("*.png")) for kind, folder in folders.items()}
        self.side, self.tokenizer = side, tokenizer

    def __len__(self) -> int:
        return max(len(paths) for paths in self.paths.values())

    def __getitem__(self, index: int) -> dict:
        example = {}
        for kind, paths in self.paths.items():
            image = Image.open(paths[index % len(paths)]).convert("RGB")
            image = image.resize((self.side, self.side), Image.Resampling.BILINEAR)
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
            ids = self.tokenizer(
                PROMPTS[kind], padding="max_length", max_length=77, return_tensors="pt"
            ).input_ids
            example[kind] = (pixels, ids[0])
        return example


def stack(examples: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [example[kind] for kind in ("instance", "class") for example in examples]
    return torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])


def plain_loop(args: argparse.Namespace, folders: dict[str, Path], device: torch.device) -> float:
    """Seconds for `args.steps` steps after a warm-up, as the example trains."""
    model = backbones.load(args.model).to(device)
    model.vae.requires_grad_(False)
    model.text_encoder.requires_grad_(False)
    model.unet.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(model.unet.parameters(), lr=5e-6, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    data = Files(folders, model.resolution, model.tokenizer)
    loader = DataLoader(data, batch_size=args.batch_size, shuffle=True, collate_fn=stack)
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=args.bf16)
    step, start = 0, 0.0
    while True:
        for pixels, ids in loader:
            if step == args.warmup:
                synchronize(device)
                start = time.perf_counter()
            with bf16:
                latents = model.vae.encode(pixels.to(device)).latent_dist.sample()
                latents = latents * model.vae.config.scaling_factor
                noise = torch.randn_like(latents)
                steps = torch.randint(model.num_train_timesteps, (len(latents),), device=device)
                noisy = model.add_noise(latents, noise, steps)
                words = model.text_encoder(ids.to(device))[0]
                predicted = model.unet(noisy, steps, words, return_dict=False)[0]
                instance, prior = ((predicted.float() - noise.float()) ** 2).chunk(2)
            loss = instance.mean() + 1.0 * prior.mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.unet.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()  # the example shows the loss in its progress bar
            step += 1
            if step == args.warmup + args.steps:
                synchronize(device)
                return time.perf_counter() - start


class Watch(pl.Callback):
    """Seconds from the end of the warm-up to the end of training."""

    def __init__(self, warmup: int, device: torch.device) -> None:
        self.warmup, self.device, self.seconds = warmup, device, 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == self.warmup:
            synchronize(self.device)
            self.start = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, *_: object) -> None:
        synchronize(self.device)
        self.seconds = time.perf_counter() - self.start


def ours(
    args: argparse.Namespace, folders: dict[str, Path], device: torch.device, caches: bool
) -> float:
    """Seconds for the same steps through the Trainer, logging on."""
    pl.seed_everything(0, verbose=False)
    watch = Watch(args.warmup, device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=args.warmup + args.steps,
            accelerator=device.type,
            devices=1,
            precision="bf16-mixed" if args.bf16 else "32-true",
            gradient_clip_val=1.0,
            logger=pl.loggers.CSVLogger(folder),
            default_root_dir=folder,
            callbacks=[watch],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module = DreamBooth(
            args.model, learning_rate=5e-6, compute=Compute(cache_text_embeddings=caches)
        )
        data = PersonalizationDataModule(
            instance_data_dir=str(folders["instance"]),
            instance_prompt=PROMPTS["instance"],
            class_prompt=PROMPTS["class"],
            class_data_dir=str(folders["class"]),
            with_prior_preservation=True,
            num_class_images=args.class_images,
            train_batch_size=args.batch_size,
            cache_latents=caches,
            cache_dir=folder,
        )
        trainer.fit(module, data)
    return watch.seconds


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib(device: torch.device) -> float:
    """Peak device memory, or on a CPU the process's peak resident size since the last reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def seconds_of(
    name: str, args: argparse.Namespace, folders: dict[str, Path], device: torch.device
) -> float:
    if name == "plain":
        return plain_loop(args, folders, device)
    return ours(args, folders, device, name == "ours, cached")


def peak_of(name: str, words: list[str]) -> float:
    """Peak MiB of one of the three in a process of its own."""
    command = [sys.executable, __file__, *words, "--peak_of", name]
    return float(subprocess.check_output(command, text=True).splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--class_images", type=int, default=20)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--peak_of", default="", help="Of one of the three alone: its peak in MiB.")
    args = parser.parse_args()
    logging.getLogger("lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    seconds: dict[str, list[float]] = {"plain": [], "ours": [], "ours, cached": []}
    with tempfile.TemporaryDirectory() as root:
        folders = {kind: Path(root) / kind for kind in PROMPTS}
        for kind, count in (("instance", 4), ("class", args.class_images)):
            folders[kind].mkdir()
            for number in range(count):
                picture = world.draw(0 if kind == "instance" else 1, number).image
                Image.fromarray(picture).save(folders[kind] / f"{number:03d}.png")
        if args.peak_of:
            reset_peak(device)
            seconds_of(args.peak_of, args, folders, device)
            print(peak_mib(device))  # noqa: T201
            return
        for _ in range(args.rounds):
            for name in seconds:
                seconds[name].append(seconds_of(name, args, folders, device))
    memory = {name: peak_of(name, sys.argv[1:]) for name in seconds}
    plain = float(np.median(seconds["plain"]))
    result = {
        name: {
            "steps_per_second": round(args.steps / float(np.median(times)), 2),
            "speed_over_plain": round(plain / float(np.median(times)), 2),
            "peak_mib": round(memory[name]),
            "peak_over_plain": round(memory[name] / memory["plain"], 3),
        }
        for name, times in seconds.items()
    }
    setting = vars(args) | {"device": str(device), "threads": torch.get_num_threads()}
    print(json.dumps(setting | {"cpus": os.cpu_count()}))  # noqa: T201
    print(json.dumps(result, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
