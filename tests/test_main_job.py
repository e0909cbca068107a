"""The main job as a person runs it: python -m pytest tests/test_main_job.py -m slow."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT.parent / "shared" / "data" / "dreambooth" / "dog"
METRICS = ("clip_t", "clip_i", "identity", "fid_pocket", "kid_pocket")


def train(*arguments: str, script: str = "train.py") -> None:
    """`python train.py fit ...` in a process of its own, as in the README."""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, str(ROOT / script), "fit", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def report_of(run: Path) -> dict:
    for name in ("config.yaml", "metrics.csv", "report.html", "checkpoints/last.ckpt"):
        assert (run / name).is_file(), name
    return json.loads((run / "report.json").read_text())


def loss_fell(run: Path) -> bool:
    with (run / "metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    tenth = max(1, len(losses) // 5)
    return sum(losses[-tenth:]) < sum(losses[:tenth])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["quickstart", "quickstart_flow"])
def test_the_quickstart_learns_its_subject(recipe: str, tmp_path: Path) -> None:
    """On both built-in families."""
    train("--config", str(ROOT / f"configs/{recipe}.yaml"), "--output_dir", str(tmp_path))
    run = tmp_path / recipe / "version_0"
    metrics = report_of(run)["metrics"]
    for name in METRICS:
        for arm in ("eval", "base"):
            estimate = metrics[f"{arm}/{name}"]
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
            assert estimate["n"] == 32
    assert metrics["eval/identity"]["low"] > metrics["base/identity"]["high"]
    assert (run / "export" / "model" / "model_index.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["quickstart", "combined"])
def test_a_recipe_on_an_accelerator(recipe: str, on_gpu: str, tmp_path: Path) -> None:
    """Stages, training, checkpoint, sampling, measures, export: nothing is in the wrong place."""
    train(
        *("--config", str(ROOT / f"configs/{recipe}.yaml"), "--output_dir", str(tmp_path)),
        *(
            "--trainer.max_steps=2",
            "--data.num_class_images=4",
            "--data.evaluation.images_per_prompt=1",
        ),
        *("--data.cache_dir", str(tmp_path / "cache"), "--model.sampling.num_inference_steps=2"),
        script=on_gpu,
    )
    assert report_of(tmp_path / recipe / "version_0")["metrics"]["eval/identity"]["n"] > 1


@pytest.mark.slow
def test_the_quickstart_on_two_processes(tmp_path: Path) -> None:
    """Every callback of the recipe, of which some write and measure on the first rank alone."""
    train(
        *("--config", str(ROOT / "configs/quickstart.yaml"), "--output_dir", str(tmp_path)),
        *("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"),
        *(
            "--trainer.max_steps=3",
            "--data.num_class_images=4",
            "--data.evaluation.images_per_prompt=2",
        ),
        *("--data.cache_dir", str(tmp_path / "cache"), "--model.sampling.num_inference_steps=2"),
    )
    run = tmp_path / "quickstart" / "version_0"
    assert report_of(run)["metrics"]["eval/identity"]["n"] == 8
    assert (run / "export" / "model" / "model_index.json").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photographs are not beside the checkout")
def test_real_photographs_on_a_random_model_of_the_large_ones_layout(tmp_path: Path) -> None:
    from models import write_small_sd

    model = write_small_sd(tmp_path / "model", size=64)
    train(
        *("--config", str(ROOT / "configs/quickstart.yaml"), "--name", "dog"),
        *("--output_dir", str(tmp_path), "--data.instance_data_dir", str(PHOTOS)),
        *("--data.instance_prompt", "a photo of sks dog", "--data.num_class_images", "8"),
        *("--data.class_prompt", "a photo of a dog", "--data.evaluation.images_per_prompt", "2"),
        *("--model.pretrained_model_name_or_path", str(model), "--trainer.max_steps", "60"),
        *("--model.learning_rate", "1e-3", "--trainer.log_every_n_steps", "1"),
        *("--model.sampling.num_inference_steps", "5"),
    )
    run = tmp_path / "dog" / "version_0"
    metrics = report_of(run)["metrics"]
    assert {f"eval/{name}" for name in METRICS} <= set(metrics)
    assert loss_fell(run)


@pytest.mark.slow
@pytest.mark.parametrize("recipes", [["sd15"], ["sd15", "sd15_full"], ["sdxl"]])
def test_the_large_recipes_run_as_written_on_a_small_model(
    recipes: list[str], tmp_path: Path
) -> None:
    """bf16, clipping, LoRA or all weights, their sampler: only size and encoders differ."""
    from models import write_small_sd, write_small_sdxl

    write = write_small_sdxl if "sdxl" in recipes else write_small_sd
    model = write(tmp_path / "model", size=64)
    kept = ("Throughput", "Evaluation", "SampleGrid", "Export", "ReportWriter")
    small = tmp_path / "small.yaml"
    callbacks = "".join(f"    - class_path: {name}\n" for name in kept)
    small.write_text(f"trainer:\n  accelerator: cpu\n  max_steps: 4\n  callbacks:\n{callbacks}")
    configs = [str(ROOT / f"configs/{name}.yaml") for name in recipes] + [str(small)]
    train(
        *(word for config in configs for word in ("--config", config)),
        *("--output_dir", str(tmp_path), "--data.instance_data_dir", "pocket:0"),
        *("--model.pretrained_model_name_or_path", str(model), "--data.resolution", "64"),
        *("--data.num_class_images", "2", "--data.evaluation.images_per_prompt", "1"),
        *("--model.sampling.num_inference_steps", "2", "--trainer.log_every_n_steps", "1"),
    )
    run = tmp_path / recipes[0] / "version_0"
    assert report_of(run)["counts"]
    assert any((run / "export").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["sd35", "flux", "flux2_klein", "qwen_image", "z_image"])
def test_the_recipes_of_flows_run_as_written_on_a_small_model(recipe: str, tmp_path: Path) -> None:
    """Text encoders freed, prompts embedded once, decoupling; 4 bits alone need a GPU."""
    import flow_models

    write = {
        "sd35": flow_models.write_small_sd3_with_t5,
        "flux": flow_models.write_small_flux,
        "flux2_klein": flow_models.write_small_klein,
        "qwen_image": flow_models.write_small_qwen_image,
        "z_image": flow_models.write_small_z_image,
    }[recipe]
    model = write(tmp_path / "model")
    kept = ("Throughput", "Evaluation", "SampleGrid", "Export", "ReportWriter")
    small = tmp_path / "small.yaml"
    callbacks = "".join(f"    - class_path: {name}\n" for name in kept)
    small.write_text(f"trainer:\n  accelerator: cpu\n  max_steps: 2\n  callbacks:\n{callbacks}")
    configs = [str(ROOT / f"configs/{recipe}.yaml"), str(small)]
    train(
        *(word for config in configs for word in ("--config", config)),
        *("--output_dir", str(tmp_path), "--data.instance_data_dir", "pocket:0"),
        *("--model.pretrained_model_name_or_path", str(model), "--data.resolution", "32"),
        *("--data.num_class_images", "2", "--data.evaluation.images_per_prompt", "1"),
        *("--model.sampling.num_inference_steps", "2", "--trainer.log_every_n_steps", "1"),
        *("--model.compute.frozen_dtype", "bf16"),
        *("--data.decoupling", str(ROOT / "configs/decoupling/code.yaml")),
    )
    run = tmp_path / recipe / "version_0"
    assert report_of(run)["counts"]
    assert (run / "export/pytorch_lora_weights.safetensors").is_file()


@pytest.mark.slow
def test_everything_at_once_on_sdxl_s_layout(tmp_path: Path) -> None:
    """Attack, purifier, decoupling, learned words of both text encoders, all weights."""
    from models import write_small_sdxl

    model = write_small_sdxl(tmp_path / "model", size=64)
    configs = ROOT / "configs"
    train(
        *("--config", str(configs / "quickstart.yaml"), "--output_dir", str(tmp_path)),
        *("--data.instance_data_dir", "pocket:0", "--trainer.max_steps", "2"),
        *("--model.pretrained_model_name_or_path", str(model), "--trainer.accelerator", "cpu"),
        *("--data.attack", str(configs / "attacks/pocket/aspl.yaml")),
        *("--data.attack.rounds", "1", "--data.attack.steps", "1"),
        *("--data.attack.training.num_class_images", "1"),
        *("--data.purifiers", "[{class_path: SDEdit, init_args: {steps: 2}}]"),
        *("--data.decoupling", str(configs / "decoupling/learned_token.yaml")),
        *("--model.new_tokens", "[<noise>]", "--data.num_class_images", "2"),
        *("--data.evaluation.images_per_prompt", "1", "--model.sampling.num_inference_steps", "2"),
    )
    run = tmp_path / "quickstart" / "version_0"
    assert report_of(run)["counts"]
    assert (run / "export/model/text_encoder_2").is_dir()
    assert (run / "export/tokens/noise.safetensors").is_file()
