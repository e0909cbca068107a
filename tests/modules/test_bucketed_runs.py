"""Photographs in their own shapes, by the command line: interrupted, and on two processes.

python -m pytest -m slow tests/modules/test_bucketed_runs.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from shortcut_lightning.cli import main

ROOT = Path(__file__).parents[2]
STEPS = 4


def arguments(photos: Path, output: Path, batch_size: int = 2) -> list[str]:
    """LoRA on the pocket, of 32 x 32 pixels and as many in other shapes."""
    given = {
        "model": "DreamBooth",
        "model.method": "lora",
        "model.sampling.num_inference_steps": 1,
        "data": "PersonalizationDataModule",
        "data.instance_data_dir": photos,
        "data.instance_prompt": "a photo of sks person",
        "data.class_prompt": "a photo of a person",
        "data.with_prior_preservation": "true",
        "data.num_class_images": 4,
        "data.resolution": 32,
        "data.bucketing": "true",
        "data.training.random_flip": "true",
        "data.train_batch_size": batch_size,
        "data.evaluation.images_per_prompt": 2,
        "data.evaluation.base": "false",
        "trainer.accelerator": "cpu",
        "trainer.max_steps": STEPS,
        "trainer.enable_progress_bar": "false",
        "trainer.callbacks+": "Evaluation",
        "output_dir": output,
    }
    options = [part for key, value in given.items() for part in (f"--{key}", str(value))]
    return ["fit", *options, "--trainer.callbacks+", "ReportWriter"]


def learned(output: Path) -> dict[str, torch.Tensor]:
    checkpoint = output / "run" / "version_0" / "checkpoints" / "last.ckpt"
    return dict(torch.load(checkpoint, weights_only=True)["state_dict"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_shapes_survive_an_interruption_and_two_processes(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, size in enumerate([(60, 60), (90, 60), (96, 60), (60, 100)]):
        pixels = torch.randint(256, (*size, 3), generator=torch.Generator().manual_seed(number))
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(photos / f"{number}.png")

    whole = tmp_path / "whole"
    main(arguments(photos, whole))
    report = json.loads((whole / "run" / "version_0" / "report.json").read_text())
    assert report["buckets"] == {"24 x 40": 2, "32 x 32": 1, "40 x 24": 1}
    sampled = Image.open(next((whole / "run/version_0/samples/tuned").glob("*.png")))
    assert sampled.size == (24, 40)
    expected = learned(whole)

    cut = arguments(photos, tmp_path / "cut")
    main([*cut, "--trainer.max_steps", "1", "--evaluate_after_fit", "false"])
    first = tmp_path / "cut/run/version_0/checkpoints/last.ckpt"
    again = arguments(photos, tmp_path / "again")
    main([*again, "--ckpt_path", str(first), "--evaluate_after_fit", "false"])
    resumed = learned(tmp_path / "again")
    assert all(torch.equal(resumed[name], value) for name, value in expected.items())

    pair = [*arguments(photos, tmp_path / "pair", batch_size=1), "--trainer.devices", "2"]
    command = [sys.executable, str(ROOT / "train.py"), *pair, "--trainer.strategy", "ddp"]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    both = learned(tmp_path / "pair")
    # Sums over the batch are taken in another order, nothing else.
    error = sum(((both[name] - value) ** 2).sum() for name, value in expected.items())
    way = sum((value**2).sum() for name, value in expected.items() if "lora_B" in name)
    assert error < 1e-6 * way
