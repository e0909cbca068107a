"""Do the recipes for large models run on this machine's card, and in the memory that `fit` tells?

    python tests/benchmarks/gpu_recipes.py --folder /dev/shm/models --minutes 5
    python tests/benchmarks/gpu_recipes.py --tiny      # on small models and the CPU, to try it

For each recipe a folder of random weights in the published layout is written and
`train.py fit --config RECIPE` is called as its user calls it: a few steps, a sampled picture, the
exported adapter, the report. What it told before loading stands beside what it took. Several run at
once, so their speed says little. Rows are in `<output>/recipes.json`, written after each.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "backbones")]

import flow_models  # noqa: E402
from gpu_layouts import default_dtype, drawn_on  # noqa: E402
from gpu_measure import why  # noqa: E402
from layouts import LAYOUTS  # noqa: E402
from models import write_small_sd, write_small_sdxl  # noqa: E402

from shortcut_lightning.files.atomic import atomic  # noqa: E402

# Tokenizers, scheduler and index come from these. The largest first, and beside it what shares its
# text encoder, which is written once.
SMALL = {
    "flux": flow_models.write_small_flux,
    "sd35": flow_models.write_small_sd3_with_t5,
    "sdxl": write_small_sdxl,
    "sd15": write_small_sd,
    "z_image": flow_models.write_small_z_image,
    "flux2_klein": flow_models.write_small_klein,
    "qwen_image": flow_models.write_small_qwen_image,
}
# What a network of published size has to know of the small tokenizer and autoencoder beside it:
# tables of words are short, all else is as published.
FACTS = (
    *("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"),
    *("scaling_factor", "shift_factor", "use_quant_conv", "use_post_quant_conv"),
)
CALLBACKS = [
    *({"class_path": name} for name in ("Throughput", "Evaluation", "SampleGrid", "ReportWriter")),
    {"class_path": "Export", "init_args": {"pipeline": False}},  # of 4 bits no whole model is made
]


@dataclass
class Row:
    """What a recipe told and took, on the device."""

    recipe: str
    state: str = "no time left"  # or ended, failed
    reason: str = ""
    told_gib: float | None = None
    took_gib: float | None = None
    steps_a_second: float | None = None
    seconds: float = 0.0


@dataclass
class Run:
    """A `fit` that goes on."""

    row: Row
    folder: Path
    process: subprocess.Popen[bytes]
    started: float


def write_model(folder: Path, recipe: str, device: torch.device, tiny: bool) -> None:
    """A folder as the recipe's model has it, of random weights in bfloat16."""
    SMALL[recipe](folder)
    if tiny:
        return
    (folder / "shortcut_lightning.json").unlink(missing_ok=True)
    for part, (library, name, settings) in LAYOUTS[recipe][1].items():
        small = json.loads((folder / part / "config.json").read_text())
        settings = settings | {key: small[key] for key in FACTS if key in small}
        if "text_config" in settings:  # of a language model that also sees
            words = {key: small["text_config"][key] for key in FACTS if key in small["text_config"]}
            settings["text_config"] = settings["text_config"] | words
        key = hashlib.sha256(json.dumps([name, settings]).encode()).hexdigest()[:12]
        written = folder.parent / "parts" / key
        if not written.exists():
            write_part(written, library, name, settings, device)
        shutil.rmtree(folder / part)
        (folder / part).symlink_to(written)


def write_part(
    folder: Path, library: str, name: str, settings: dict[str, Any], device: torch.device
) -> None:
    """One network, its weights drawn small: deep stacks of the usual draws can overflow."""
    kind = getattr(import_module(library), name)
    with drawn_on(device), default_dtype(torch.bfloat16):
        transformers = library == "transformers"
        network = kind(kind.config_class(**settings)) if transformers else kind(**settings)
    for each in network.parameters():
        if each.ndim > 1:
            each.data.normal_(0, 0.02)
    network.to(torch.bfloat16).save_pretrained(folder)


def command(recipe: str, model: Path, output: Path, classes: Path, tiny: bool) -> list[str]:
    """The recipe, with what makes it short."""
    said = ["--trainer.max_steps", "8", "--trainer.callbacks", json.dumps(CALLBACKS)]
    said += ["--model.pretrained_model_name_or_path", str(model)]
    said += ["--model.sampling.num_inference_steps", "4", "--output_dir", str(output)]
    said += ["--data.instance_data_dir", "pocket:20", "--data.class_data_dir", str(classes)]
    said += ["--data.num_class_images", "4", "--data.evaluation.prompts", '["{instance}"]']
    said += ["--data.evaluation.images_per_prompt", "1"]
    if tiny:
        said += ["--data.resolution", "32", "--trainer.accelerator", "cpu"]
        said += ["--model.compute.frozen_dtype", "bf16"]
    return [sys.executable, str(ROOT / "train.py"), "fit", "--config", recipe, *said]


def class_pictures(folder: Path) -> Path:
    """Four pictures of noise."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).resize((1024, 1024)).save(folder / f"{number}.png")
    return folder


def finish(run: Run, cut: bool) -> None:
    """Fills the row from what the run left."""
    row, row.seconds = run.row, time.monotonic() - run.started
    said = (run.folder / "log.txt").read_text(errors="replace")
    if told := re.search(r"memory: about ([\d.]+) GiB", said):
        row.told_gib = float(told[1])
    for report in run.folder.rglob("report.json"):
        speed = json.loads(report.read_text())["throughput"]
        row.took_gib, row.steps_a_second = speed.get("GiB peak memory"), speed.get("steps/s")
    row.state = "no time left" if cut else "failed" if run.process.returncode else "ended"
    if row.state == "failed":
        row.reason = (said.strip().splitlines() or [""])[-1][:300]


def forget(model: Path) -> None:
    """Makes room: all but the text encoders that two recipes share."""
    for part in model.iterdir():
        if part.is_symlink() and not part.name.startswith("text_encoder"):
            shutil.rmtree(part.resolve())
    shutil.rmtree(model)


def write(output: Path, rows: list[Row]) -> None:
    """What is known so far, whole."""
    with atomic(output / "recipes.json") as path:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="*", choices=list(SMALL), default=list(SMALL)[:-1])
    parser.add_argument("--folder", type=Path, default=Path("gpu-models"), help="For the weights.")
    parser.add_argument("--output", type=Path, default=Path("gpu-results"))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--at_once", type=int, default=3, help="Runs at the same time.")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if not args.tiny and not torch.cuda.is_available():
        parser.error("no CUDA device here; --tiny tries the script")
    device = torch.device("cpu" if args.tiny else "cuda")
    deadline = time.monotonic() + args.minutes * 60
    args.output.mkdir(parents=True, exist_ok=True)
    classes = class_pictures(args.output / "classes").absolute()
    rows: list[Row] = [Row(recipe) for recipe in args.recipes]
    runs: list[Run] = []

    def settle(most: int) -> None:
        """Waits until at most so many runs go on, or the time is over."""
        while len(runs) > most:
            for run in list(runs):
                cut = time.monotonic() > deadline
                if run.process.poll() is None and not cut:
                    continue
                run.process.kill()
                finish(run, cut)
                runs.remove(run)
                forget(args.folder / run.row.recipe)
                write(args.output, rows)
                sys.stdout.write(f"{json.dumps(asdict(run.row))}\n")
            time.sleep(0.5)

    for row in rows:
        settle(args.at_once - 1)
        if time.monotonic() > deadline:
            break
        started, model = time.monotonic(), args.folder.absolute() / row.recipe
        try:
            write_model(model, row.recipe, device, args.tiny)
        except Exception as error:  # out of memory or room: the next may fit
            row.state, row.reason = "failed", why(error)
            continue
        if not args.tiny:
            torch.cuda.empty_cache()
        sys.stdout.write(f"{row.recipe}: written in {time.monotonic() - started:.0f} s\n")
        sys.stdout.flush()
        folder = args.output.absolute() / row.recipe
        folder.mkdir(parents=True, exist_ok=True)
        said = command(row.recipe, model, folder, classes, args.tiny)
        with (folder / "log.txt").open("wb") as log:
            process = subprocess.Popen(said, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        runs.append(Run(row, folder, process, time.monotonic()))
        write(args.output, rows)
    settle(0)
    write(args.output, rows)
    shutil.rmtree(args.folder / "parts", ignore_errors=True)  # text encoders, several GB


if __name__ == "__main__":
    main()
