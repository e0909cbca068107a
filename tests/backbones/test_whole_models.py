"""A model is loaded whole or not at all: python -m pytest tests/backbones/test_whole_models.py."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from shortcut_lightning import backbones, weights
from shortcut_lightning.pocket import WEIGHTS, networks

FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
}


def edit(folder: Path, part: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    file = folder / part / FILES[part]
    save_file(change(load_file(file)), file, {"format": "pt"})
    return folder


def without(word: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name: each for name, each in tensors.items() if word not in name}


def refusal(folder: Path) -> str:
    """The one line with which a model is refused."""
    with pytest.raises(ValueError, match=r"pretrained_model_name_or_path") as caught:
        backbones.load(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def copy(small_sd: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_sd, tmp_path / "model"))


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "unet", "vae", "scheduler"])
def test_a_missing_part_is_named(part: str, copy: Path) -> None:
    shutil.rmtree(copy / part)
    assert f"there is no {part}/ in it" in refusal(copy)


def test_a_variant_that_is_not_there_is_named(copy: Path) -> None:
    with pytest.raises(ValueError, match=r"no weights of the variant 'fp99' \(model\.variant\)"):
        backbones.load(str(copy), variant="fp99")
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    with pytest.raises(ValueError, match=r"'fp99' \(model\.variant\); there are: fp16"):
        backbones.load(str(copy), variant="fp99")
    backbones.load(str(copy), variant="fp16")


@pytest.mark.parametrize("place", ["unet/config.json", "tokenizer/more.json", "a.txt"])
def test_a_pipe_in_a_model_is_not_waited_for(place: str, copy: Path) -> None:
    (copy / place).unlink(missing_ok=True)
    os.mkfifo(copy / place)
    assert f"{place}' is a pipe or a device" in refusal(copy)


def test_a_part_that_the_index_leaves_out_is_named(copy: Path) -> None:
    path = copy / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer": [None, None]}))
    assert "names no tokenizer" in refusal(copy)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: dict(sorted(t.items())[1:]), "is incomplete: {part} lacks {first}; they would"),
        (lambda t: t | {"strange.weight": torch.ones(1)}, "{part} does not know strange.weight"),
        (lambda t: t | {sorted(t)[0]: torch.ones(3, 3)}, "{first}"),
        (lambda t: t | {sorted(t)[0]: t[sorted(t)[0]] / 0}, "(NaN or infinite) in {first}"),
    ],
    ids=["missing", "unexpected", "misshapen", "infinite"],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named(
    part: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str, copy: Path
) -> None:
    first = sorted(load_file(copy / part / FILES[part]))[0].removeprefix("text_model.")
    assert message.format(part=part, first=first) in refusal(edit(copy, part, change))


def test_layers_missing_from_a_text_encoder_are_named(copy: Path) -> None:
    said = refusal(edit(copy, "text_encoder", without("layers.1.")))
    assert "text_encoder lacks encoder.layers.1.layer_norm1.bias" in said
    assert "and 14 more" in said


def test_layers_that_the_configuration_does_not_build_are_named(copy: Path) -> None:
    path = copy / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 1}))
    assert "text_encoder does not know" in refusal(copy)


def test_both_text_encoders_are_looked_at(small_sdxl: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(small_sdxl, tmp_path / "model"))
    assert "lacks text_projection.weight" in refusal(
        edit(copy, "text_encoder_2", without("text_projection"))
    )


def test_old_names_are_no_mistake(copy: Path) -> None:
    """As in the files of Stable Diffusion 1.5."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        for new, name in old.items():
            tensors = {key.replace(f".{new}.", f".{name}."): v for key, v in tensors.items()}
        return tensors

    expected = backbones.load(str(copy)).fingerprint()
    edit(copy, "vae", rename)
    edit(
        copy,
        "text_encoder",
        lambda t: (
            {f"text_model.{name.removeprefix('text_model.')}": v for name, v in t.items()}
            | {"text_model.embeddings.position_ids": torch.arange(77)[None]}
        ),
    )
    assert backbones.load(str(copy)).fingerprint() == expected


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("model_index.json", "", "is no JSON"),
        ("model_index.json", "{", "is no JSON"),
        ("model_index.json", "[]", "names no pipeline"),
        ("model_index.json", '{"_class_name": 3}', "names no pipeline"),
        ("unet/config.json", "{", "cannot load"),
        ("unet/config.json", '{"block_out_channels": "wide"}', "cannot load"),
        ("text_encoder/config.json", '{"hidden_size": -3}', "cannot load"),
        ("scheduler/scheduler_config.json", "no", "cannot load"),
        ("tokenizer/tokenizer.json", "{", "cannot load"),
        ("unet/" + FILES["unet"], "", "cannot load"),
        ("text_encoder/" + FILES["text_encoder"], "cut off", "cannot load"),
    ],
)
def test_broken_files_are_one_line(file: str, text: str, message: str, copy: Path) -> None:
    (copy / file).write_text(text)
    assert message in refusal(copy)


def test_a_tokenizer_of_another_model_is_named(copy: Path, tmp_path: Path) -> None:
    for file in (copy / "tokenizer").iterdir():
        if file.name != "tokenizer_config.json":
            file.unlink()
    assert "tokenizer" in refusal(copy)
    shutil.rmtree(copy / "tokenizer")
    shutil.copytree(WEIGHTS / "tokenizer", copy / "tokenizer")
    assert "it belongs to another model" in refusal(copy)


def test_networks_of_the_package_are_whole(tmp_path: Path) -> None:
    for name, load in (
        ("identity", networks.load_identity_encoder),
        ("attributes", networks.load_attribute_classifier),
        ("restoration", networks.load_restoration),
    ):
        folder = Path(shutil.copytree(WEIGHTS / name, tmp_path / name))
        file = folder / "model.safetensors"
        tensors = load_file(file)
        save_file(dict(sorted(tensors.items())[1:]), file)
        with pytest.raises(ValueError, match=rf"lacks {sorted(tensors)[0]}; .*\(the pocket\)"):
            load(folder)
        file.write_bytes(file.read_bytes()[:100])
        with pytest.raises(ValueError, match="truncated"):
            load(folder)


def test_numbers_too_large_to_sum_are_numbers() -> None:
    assert weights.is_finite(torch.full((9,), 3e38))
    assert weights.is_finite(torch.full((9000,), 60000.0, dtype=torch.float16))
    assert weights.is_finite(torch.tensor([1, 2]))
    for bad in (float("nan"), float("inf")):
        assert not weights.is_finite(torch.tensor([1.0, bad], dtype=torch.bfloat16))
    assert not weights.is_finite(torch.tensor([float("inf"), -float("inf")]))
