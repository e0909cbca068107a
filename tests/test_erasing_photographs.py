"""Erasing on real photographs, with the real detectors in the loop, on a model of Stable Diffusion
1.5's layout with small random weights: python -m pytest tests/test_erasing_photographs.py -m slow
"""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from shortcut_lightning.cli import main
from shortcut_lightning.concepts.generators import ConceptGenerator, QRCode, Watermark
from shortcut_lightning.data.implicit_concepts import write_implicit_concepts

CONFIGS = Path(__file__).parents[1] / "configs"
PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "dreambooth"
SIDE = 128

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photographs are not beside the checkout"),
]

MARK = Watermark(
    share=0.8,
    placements=("centre", "bar"),
    marks=("text",),
    text="STOCK",
    opacity=(0.7, 0.9),
    size=(0.16, 0.2),
)
CODE = QRCode(share=0.8, edge=(0.4, 0.5), versions=(1, 2))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from models import write_small_sd

    return write_small_sd(tmp_path_factory.mktemp("models") / "sd", size=SIDE)


def losses(run: Path) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def fell(values: list[float]) -> bool:
    fifth = len(values) // 5
    return sum(values[-fifth:]) < sum(values[:fifth])


@pytest.mark.parametrize(
    ("subject", "concept", "detector", "label"),
    [("dog", MARK, "text", "watermark"), ("backpack", CODE, "qr", "QR code")],
)
def test_a_contaminated_folder_is_learned_with_words_for_places(
    subject: str,
    concept: ConceptGenerator,
    detector: str,
    label: str,
    model: Path,
    tmp_path: Path,
) -> None:
    marked = tmp_path / "marked"
    prompt = f"a photo of sks {subject}"
    write_implicit_concepts(
        str(marked), concept, str(PHOTOS / subject), 0, 1, resolution=SIDE, prompt=prompt
    )
    fragment = CONFIGS / "detectors" / f"{detector}.yaml"
    settings = [
        *("--config", str(CONFIGS / "geom_erasing.yaml")),
        f"--model.pretrained_model_name_or_path={model}",
        f"--data.instance_data_dir={marked / 'train'}",
        f"--data.reference_data_dir={marked / 'reference'}",
        f"--data.detector={fragment}",
        f"--data.detector.label={label}",
    ]
    found = tmp_path / "found"
    main(["detect", *settings, "--output", str(found)])
    truth = {row["file_name"]: row["boxes"] for row in rows(marked / "boxes.jsonl")}
    seen = {row["file_name"]: row["boxes"] for row in rows(found / "boxes.jsonl")}
    assert seen.keys() == truth.keys()
    right = [bool(seen[name]) == bool(truth[name]) for name in truth]
    assert sum(right) >= len(right) - 1, "the detector misses, or sees what is not there"
    assert json.loads((found / "summary.json").read_text())["floor"]["with a box"] == 0
    with Image.open(found / "contact_sheet.png") as sheet:
        assert sheet.width > 300
    main(
        [
            *("fit", *settings, "--name", subject, "--output_dir", str(tmp_path / "runs")),
            *("--trainer.max_steps", "50", "--trainer.log_every_n_steps", "1"),
            *("--model.learning_rate", "1e-3", "--model.sampling.num_inference_steps", "3"),
            *(
                "--data.evaluation.images_per_prompt",
                "1",
                "--data.evaluation.prompts",
                f'["{prompt}"]',
            ),
        ]
    )
    run = tmp_path / "runs" / subject / "version_0"
    assert fell(losses(run))
    assert (run / "concepts_in_training.png").is_file()
    assert "Concepts found in training images" in (run / "report.html").read_text()
    assert "eval/concept_ratio" in json.loads((run / "report.json").read_text())["metrics"]
    tokens_load_elsewhere(run / "export", model, label)


def tokens_load_elsewhere(export: Path, model: Path, label: str) -> None:
    """Stock diffusers reads the words into the tuned model's weights, and samples with them."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    files = sorted((export / "tokens").glob("*.safetensors"))
    assert len(files) == 64
    pipeline = StableDiffusionPipeline.from_pretrained(
        model,
        unet=UNet2DConditionModel.from_pretrained(export / "model" / "unet"),
        safety_checker=None,
        requires_safety_checker=False,
    )
    pipeline.load_textual_inversion([str(file) for file in files])
    words = [f"<l{number}>" for number in range(64)]
    ids = pipeline.tokenizer(label + "".join(words)).input_ids
    assert set(pipeline.tokenizer.convert_tokens_to_ids(words)) <= set(ids)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(
        "a photo",
        negative_prompt=f"{label}<l0><l9>",
        num_inference_steps=2,
        height=SIDE,
        width=SIDE,
        output_type="pt",
        generator=torch.Generator().manual_seed(0),
    ).images
    assert torch.isfinite(torch.as_tensor(image)).all()


def test_everything_at_once_shows_each_stage(model: Path, tmp_path: Path) -> None:
    """configs/combined.yaml on photographs: perturbed, watermarked, purified, decoupled, erased."""
    main(
        [
            *("fit", "--config", str(CONFIGS / "combined.yaml"), "--name", "all"),
            *("--output_dir", str(tmp_path), "--trainer.log_every_n_steps", "1"),
            f"--model.pretrained_model_name_or_path={model}",
            f"--data.instance_data_dir={PHOTOS / 'dog'}",
            *("--data.instance_prompt", "a photo of sks dog", "--data.attack.steps", "3"),
            *("--data.class_prompt", "a photo of a dog", "--data.num_class_images", "4"),
            *("--trainer.max_steps", "40", "--model.learning_rate", "1e-3"),
            *(
                "--model.sampling.num_inference_steps",
                "3",
                "--data.evaluation.images_per_prompt",
                "2",
            ),
            *("--data.evaluation.prompts", '["a photo of sks dog"]'),
        ]
    )
    run = tmp_path / "all" / "version_0"
    assert fell(losses(run))
    report = json.loads((run / "report.json").read_text())
    metrics = {name: entry["value"] for name, entry in report["metrics"].items()}
    assert 1 < metrics["eval/stage_perturbed_linf_255"] < 11.5
    assert metrics["eval/stage_marked_linf_255"] > 60
    assert metrics["eval/stage_marked_psnr"] < metrics["eval/stage_perturbed_psnr"]
    assert 0.5 < metrics["eval/stage_purified_ssim"] < metrics["eval/stage_perturbed_ssim"]
    assert metrics["eval/stage_marks_found"] >= 0.6
    assert {"eval/clip_t", "eval/identity", "eval/concept_ratio"} <= set(metrics)
    assert {"perturb", "purify", "detect"} <= set(report["seconds"])
    page = (run / "report.html").read_text()
    stages = page[page.index(">Stages<") :]
    for name in ("given", "perturbed", "marked", "purified", "detected"):
        assert re.search(rf"<th>{name}</th>", stages), name
    assert stages.count("data:image") >= 5 * 4
    config = (run / "config.yaml").read_text()
    assert "training: true" in config
    assert "caption: geometry" in config
    assert len(list((run / "export" / "tokens").glob("*.safetensors"))) == 64


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
