"""Inputs that once passed without a word, as a user types them: pytest this file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from shortcut_lightning import backbones
from shortcut_lightning.cli import main

Mistake = Callable[..., str]
PROMPT = "a photo of sks dog"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        Image.new("RGB", (40, 40), (90, 60 * number, 30)).save(folder / f"{number}.png")
    return folder


def recipe(model: Path, pictures: Path) -> list[str]:
    return [
        "--model=DreamBooth",
        f"--model.pretrained_model_name_or_path={model}",
        "--data=PersonalizationDataModule",
        f"--data.instance_data_dir={pictures}",
        f"--data.instance_prompt={PROMPT}",
        "--data.class_prompt=a photo of a dog",
        "--trainer.accelerator=cpu",
        "--trainer.max_steps=1",
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
    ]


def no_tokenizer(model: Path) -> None:
    shutil.rmtree(model / "tokenizer")


def layers_missing(model: Path) -> None:
    file = model / "text_encoder" / "model.safetensors"
    state = load_file(file)
    save_file({k: v for k, v in state.items() if ".layers.1." not in k}, file, {"format": "pt"})


def not_finite(model: Path) -> None:
    file = model / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["conv_in.bias"] = state["conv_in.bias"] * float("nan")
    save_file(state, file, {"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (no_tokenizer, "tokenizer"),
        (layers_missing, "text_encoder"),
    ],
)
def test_a_model_with_a_part_missing_or_broken(
    spoil: Callable[[Path], None],
    named: str,
    small_sd: Path,
    pictures: Path,
    tmp_path: Path,
    mistake: Mistake,
) -> None:
    model = shutil.copytree(small_sd, tmp_path / "model")
    spoil(model)
    assert named in mistake("fit", *recipe(model, pictures))


def test_a_model_of_no_numbers_ends_with_code_1_and_nothing_is_exported(
    small_sd: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(small_sd, tmp_path / "model")
    not_finite(model)
    with pytest.raises(SystemExit) as end:
        main(["fit", *recipe(model, pictures)])
    assert end.value.code == 1
    assert "(NaN or infinite) in conv_in.bias" in capsys.readouterr().err
    assert not list(tmp_path.rglob("export"))


def test_a_caption_that_is_null(small_sd: Path, pictures: Path, mistake: Mistake) -> None:
    rows = [{"file_name": "0.png", "text": PROMPT}, {"file_name": "1.png", "text": None}]
    (pictures / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said = mistake("fit", *recipe(small_sd, pictures), "--data.use_captions=true")
    assert "metadata.jsonl" in said
    assert "line 2" in said


def test_a_caption_that_cuts_the_word(small_sd: Path, pictures: Path, mistake: Mistake) -> None:
    for number in range(2):
        (pictures / f"{number}.txt").write_text("green grass, a wooden fence, " * 30 + PROMPT)
    said = mistake("fit", *recipe(small_sd, pictures), "--data.use_captions=true")
    assert "0.png" in said
    assert "sks" in said


@pytest.mark.parametrize(
    "row",
    ["0.png,code,0.9,0.1,0.1,0.5", "0.png,code,nan,0,1,1", "0.png,code,4,4,30,30"],
    ids=["reversed", "nan", "pixels"],
)
def test_boxes_that_are_none(row: str, small_sd: Path, pictures: Path, mistake: Mistake) -> None:
    Path("boxes.csv").write_text(f"file_name,label,x0,y0,x1,y1\n1.png,code,0,0,1,1\n{row}\n")
    args = ["--data.detector=CsvBoxes", "--data.detector.path=boxes.csv", "--output=out"]
    assert "line 3" in mistake("detect", *recipe(small_sd, pictures), *args)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda key: key.replace("down_blocks_0", "down_blokcs_0"), "down_blokcs_0"),
        (lambda key: key.replace("lora_down.weight", "lokr_w1"), "is damaged"),
    ],
    ids=["misspelt", "lokr"],
)
def test_a_lora_that_cannot_be_used_whole(
    change: Callable[[str], str],
    named: str,
    small_sd: Path,
    pictures: Path,
    tmp_path: Path,
    mistake: Mistake,
) -> None:
    backbone = backbones.load(str(small_sd)).requires_grad_(False)
    backbone.add_lora(unet=True, text_encoder=False, rank=2, alpha=2, dropout=0.0, dora=False)
    backbone.save_lora(tmp_path)
    state = load_file(tmp_path / "kohya_lora.safetensors")
    save_file({change(key): each for key, each in state.items()}, tmp_path / "bad.safetensors")
    said = mistake("test", *recipe(small_sd, pictures), "--model.lora=bad.safetensors")
    assert named in said


@pytest.mark.parametrize(
    "vectors",
    [
        {"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)},
        {"emb_params": torch.ones(1, 768)},
    ],
    ids=["two encoders", "another width"],
)
def test_an_embedding_for_another_model(
    vectors: dict[str, torch.Tensor], small_sd: Path, pictures: Path, mistake: Mistake
) -> None:
    save_file(vectors, "word.safetensors")
    args = ["--model.embeddings=[word.safetensors]"]
    said = mistake("fit", *recipe(small_sd, pictures), *args)
    assert "768" in said
    assert "32" in said
    assert "{" not in said


def test_a_config_in_latin_1(small_sd: Path, pictures: Path, mistake: Mistake) -> None:
    Path("more.yaml").write_bytes("# caf\u00e9\nseed_everything: 1\n".encode("latin-1"))
    said = mistake("fit", *recipe(small_sd, pictures), "--config=more.yaml")
    assert "more.yaml" in said
    assert "UTF-8" in said


def test_a_picture_whose_name_is_latin_1(small_sd: Path, pictures: Path) -> None:
    (pictures / "0.png").rename(pictures / b"caf\xe9.png".decode("utf-8", "surrogateescape"))
    args = ["--data.attack=RandomNoise", "--output=out"]
    main(["protect", *recipe(small_sd, pictures), *args])
    assert len(list(Path("out").glob("*.png"))) == 2
