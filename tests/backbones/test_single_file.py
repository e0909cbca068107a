"""Checkpoints in one file, in the original names: pytest tests/backbones/test_single_file.py."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKL,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from models import small_tokenizer
from safetensors.torch import save_file
from torch import Tensor, nn

from shortcut_lightning import backbones
from shortcut_lightning.backbones import original_configs, original_names, single_file
from shortcut_lightning.backbones.original_kinds import kind_of
from shortcut_lightning.backbones.sdxl import StableDiffusionXL
from shortcut_lightning.backbones.stable_diffusion import StableDiffusion

Tensors = dict[str, Tensor]
OPEN_CLIP_LAYERS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def split(name: str) -> tuple[str, str]:
    module, _, parameter = name.rpartition(".")
    return module, "." + parameter


def open_clip(network: nn.Module, prefix: str) -> Tensors:
    """A text encoder as open_clip writes it, with a layer and a projection that 2.x leaves out."""
    own = {name.removeprefix("text_model."): each for name, each in network.state_dict().items()}
    made = {
        prefix + "token_embedding.weight": own["embeddings.token_embedding.weight"],
        prefix + "positional_embedding": own["embeddings.position_embedding.weight"],
        prefix + "ln_final.weight": own["final_layer_norm.weight"],
        prefix + "ln_final.bias": own["final_layer_norm.bias"],
        prefix + "logit_scale": torch.ones(()),
    }
    for layer in range(2):
        theirs, ours = f"{prefix}transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
        for kind in (".weight", ".bias"):
            for there, here in OPEN_CLIP_LAYERS.items():
                made[theirs + there + kind] = own[ours + here + kind]
            rows = [own[f"{ours}self_attn.{each}_proj{kind}"] for each in "qkv"]
            made[f"{theirs}attn.in_proj_{kind[1:]}"] = torch.cat(rows)
    width = len(own["final_layer_norm.bias"])
    projection = own.get("text_projection.weight", torch.ones(width, width))
    return made | {prefix + "text_projection": projection.T.contiguous()}


def original(folder: Path, kind: str) -> Tensors:
    """The tensors of a small model as the original code writes them."""
    backbone = backbones.load(str(folder))
    assert isinstance(backbone, StableDiffusion)
    made: Tensors = {"model_ema.decay": torch.ones(()), "betas": torch.ones(3)}
    for name, each in backbone.unet.state_dict().items():
        module, parameter = split(name)
        original_name = original_names.unet(backbone.unet, module)
        made["model.diffusion_model." + original_name + parameter] = each
    for name, each in backbone.vae.state_dict().items():
        module, parameter = split(name)
        there = original_names.autoencoder(module, 3)
        in_attention = ".attn_1." in there and "norm" not in there and parameter == ".weight"
        tensor = each[..., None, None] if in_attention else each
        made["first_stage_model." + there + parameter] = tensor
    first = backbone.text_encoder
    if kind == "2.x":
        made |= open_clip(first, "cond_stage_model.model.")
    else:
        prefix = "cond_stage_model" if kind == "1.x" else "conditioner.embedders.0"
        prefix += ".transformer.text_model."
        for name, each in first.state_dict().items():
            made[prefix + name.removeprefix("text_model.")] = each
        made[prefix + "embeddings.position_ids"] = torch.arange(77)[None]
    if isinstance(backbone, StableDiffusionXL):
        made |= open_clip(backbone.text_encoder_2, "conditioner.embedders.1.model.")
    return {name: each.clone().contiguous() for name, each in made.items()}


def folder_of(kind: str, request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue("small_sdxl" if kind == "XL" else "small_sd"))


def load(file: Path, config: Path) -> StableDiffusion:
    backbone = backbones.load(str(file), single_file_config=str(config))
    assert isinstance(backbone, StableDiffusion)
    return backbone


@pytest.mark.parametrize("kind", ["1.x", "2.x", "XL"])
@pytest.mark.parametrize("form", ["model.safetensors", "model.ckpt"])
def test_a_file_is_the_folder_it_was_made_of(
    kind: str, form: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = folder_of(kind, request)
    tensors = original(folder, kind)
    if form.endswith("ckpt"):
        torch.save({"state_dict": tensors, "global_step": 7}, tmp_path / form)
    else:
        save_file(tensors, tmp_path / form)
    assert kind_of(tensors, "it", "key") == kind
    expected, backbone = backbones.load(str(folder)), load(tmp_path / form, folder)
    assert type(backbone) is type(expected)
    assert backbone.fingerprint() == expected.fingerprint()
    pictures = [
        each.sample(["a photo of sks dog"], seeds=[0], num_inference_steps=2)
        for each in (expected, backbone)
    ]
    # Not bit for bit: products round by where weights lie in memory.
    torch.testing.assert_close(pictures[0], pictures[1], atol=1e-5, rtol=0)
    half = backbones.load(str(tmp_path / form), dtype=torch.float16, single_file_config=str(folder))
    assert {p.dtype for p in half.denoiser.parameters()} == {torch.float16}


@pytest.mark.parametrize("kind", ["1.x", "XL"])
def test_stock_diffusers_reads_the_same_from_the_file(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Its own table of names, not the one here that the file was written with."""
    folder = folder_of(kind, request)
    save_file(original(folder, kind), tmp_path / "model.safetensors")
    family = StableDiffusionXLPipeline if kind == "XL" else StableDiffusionPipeline
    stock = family.from_single_file(
        str(tmp_path / "model.safetensors"), config=str(folder), local_files_only=True
    )
    backbone = load(tmp_path / "model.safetensors", folder)
    for name, network in (backbone.networks | {"vae": backbone.vae}).items():
        theirs = getattr(stock, name).state_dict()
        assert theirs.keys() == network.state_dict().keys()
        for key, each in network.state_dict().items():
            assert torch.equal(each, theirs[key]), f"{name} {key}"


PARAMETERS = {
    "1.x": (859_520_964, [123_060_480]),
    "2.x": (865_910_724, [340_387_840]),
    "XL": (2_567_463_684, [123_060_480, 694_659_840]),
}


@pytest.mark.parametrize("kind", ["1.x", "2.x", "XL"])
def test_architectures_have_the_published_numbers_of_parameters(
    kind: original_configs.Kind,
) -> None:
    def count(network: nn.Module) -> int:
        return sum(each.numel() for each in network.parameters())

    with init_empty_weights():
        unet = UNet2DConditionModel(**original_configs.UNETS[kind])
        vae = AutoencoderKL(**original_configs.autoencoder(kind))
        encoders = [
            (transformers.CLIPTextModelWithProjection if number else transformers.CLIPTextModel)(
                transformers.CLIPTextConfig(**settings)
            )
            for number, settings in enumerate(original_configs.text_encoders(kind))
        ]
    assert (count(unet), [count(each) for each in encoders]) == PARAMETERS[kind]
    assert count(vae) == 83_653_863
    modules = {original_names.unet(unet, name) for name, _ in unet.named_modules()}
    known = {
        "1.x": ["input_blocks.3.0.op", "output_blocks.2.1.conv", "output_blocks.5.2.conv"],
        "2.x": ["middle_block.1.transformer_blocks.0.attn2.to_k", "output_blocks.11.1.proj_out"],
        "XL": ["label_emb.0.2", "input_blocks.8.1.transformer_blocks.9.ff.net.0.proj", "out.2"],
    }
    assert modules.issuperset(known[kind])


def changed(**more: Tensor) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name.replace("__", "."): each for name, each in more.items()}


ENTRY = "model__diffusion_model__input_blocks__0__0__weight"
MISTAKES: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "FLUX": (lambda t: {"double_blocks.0.img_attn.qkv.weight": torch.ones(1)}, "is a FLUX model;"),
    "SD3": (
        lambda t: {"model.diffusion_model.joint_blocks.0.x": torch.ones(1)},
        "is a Stable Diffusion 3 model; Stable Diffusion 1.x, 2.x and XL are known",
    ),
    "transformer": (
        lambda t: {"model.diffusion_model.layers.0.x": torch.ones(1)},
        r"no Stable Diffusion checkpoint \(a diffusion transformer\)",
    ),
    "LoRA": (lambda t: {"lora_unet_a.lora_up.weight": torch.ones(1)}, "to be given as model.lora"),
    "VAE": (lambda t: {"encoder.conv_in.weight": torch.ones(1)}, "is an autoencoder alone"),
    "part": (lambda t: {"down_blocks.0.x": torch.ones(1)}, "is one part of a diffusers folder"),
    "fit": (lambda t: {"backbone.unet.conv_in.weight": torch.ones(1)}, "--ckpt_path"),
    "inpainting": (changed(**{ENTRY: torch.ones(32, 9, 3, 3)}), "is an inpainting model"),
    "refiner": (
        changed(conditioner__embedders__0__model__ln_final__weight=torch.ones(1)),
        "is the refiner of Stable Diffusion XL",
    ),
    "no text": (
        lambda t: {name: each for name, each in t.items() if "cond_stage" not in name},
        "no text encoders beside it",
    ),
    "no VAE": (
        lambda t: {name: each for name, each in t.items() if "first_stage" not in name},
        "the autoencoder lacks decoder.conv_in.bias",
    ),
    "a layer missing": (
        lambda t: {name: each for name, each in t.items() if "middle_block.2" not in name},
        r"the denoiser lacks mid_block.resnets.1",
    ),
    "one too many": (
        changed(model__diffusion_model__strange=torch.ones(1)),
        "does not know model.diffusion_model.strange",
    ),
    "other shape": (changed(**{ENTRY: torch.ones(64, 4, 3, 3)}), "is 64x4x3x3, expected 32x4x3x3"),
    "NaN": (changed(**{ENTRY: torch.ones(32, 4, 3, 3) / 0}), r"\(NaN or infinite\)"),
    "nothing": (lambda t: {"a": torch.ones(1)}, "no Stable Diffusion checkpoint"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_else_a_file_is_or_lacks_is_one_line(
    name: str, small_sd: Path, tmp_path: Path
) -> None:
    change, message = MISTAKES[name]
    save_file(change(original(small_sd, "1.x")), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path / "a.safetensors", small_sd)
    assert "\n" not in str(caught.value)
    assert "model.pretrained_model_name_or_path" in str(caught.value)


def test_a_file_that_needs_unpickling_is_refused(small_sd: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": original(small_sd, "1.x"), "x": Path("here")}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"holds more than weights \('pathlib"):
        load(tmp_path / "a.ckpt", small_sd)
    with pytest.raises(ValueError, match=r"no folder or file 'missing.ckpt'"):
        backbones.load("missing.ckpt")


def test_the_tokenizer_is_found_beside_the_file_or_asked_for(
    small_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the tokenizer's folder: then the architecture is that of the published models."""
    file = tmp_path / "model.safetensors"
    save_file(original(small_sd, "1.x"), file)
    with pytest.raises(ValueError, match=r"the denoiser lacks .* and \d+ more"):
        load(file, small_sd / "tokenizer")
    small = {part: single_file._config(small_sd, part) for part in ("unet", "vae", "text_encoder")}
    monkeypatch.setattr(original_configs, "UNETS", {"1.x": small["unet"]})
    monkeypatch.setattr(original_configs, "autoencoder", lambda kind: small["vae"])
    monkeypatch.setattr(original_configs, "text_encoders", lambda kind: [small["text_encoder"]])
    message = r"folder of CLIP's tokenizer .* as model.single_file_config, or put it beside"
    with pytest.raises(ValueError, match=message):
        backbones.load(str(file))
    with pytest.raises(ValueError, match=r"and put it beside the file as tokenizer/"):
        backbones.load(str(file), key="data.autoencoder")
    shutil.copytree(small_sd / "tokenizer", tmp_path / "tokenizer")
    backbone = backbones.load(str(file))
    assert isinstance(backbone, StableDiffusion)
    assert type(backbone.scheduler).__name__ == "PNDMScheduler"
    assert backbone.prediction_type == "epsilon"
    assert backbone.latent_scale == pytest.approx(0.18215)
    with pytest.raises(ValueError, match="is for checkpoints in one file"):
        backbones.load(str(small_sd), single_file_config=str(small_sd))


def test_one_vocabulary_serves_both_encoders_of_xl(small_sdxl: Path, tmp_path: Path) -> None:
    first, second = (
        single_file._tokenizer(small_sdxl / "tokenizer", suffix, "XL", "") for suffix in ("", "_2")
    )
    assert first.pad_token == "<|endoftext|>"
    assert second.pad_token == "!"
    assert second.pad_token_id == small_tokenizer().get_vocab()["!"]


def test_what_2x_predicts_is_told_by_metadata_or_by_its_answer_to_noise(
    small_sd: Path, tmp_path: Path
) -> None:
    def told(metadata: dict[str, str], kind: original_configs.Kind, unet: nn.Module) -> str:
        save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata)
        file = single_file._File(tmp_path / "a.safetensors", "")
        return single_file._prediction(file, kind, unet)

    class Echo(nn.Module):
        """Predicts the noise that it is given, or a picture that has nothing to do with it."""

        def __init__(self, noise: bool) -> None:
            super().__init__()
            self.noise, self.dtype = noise, torch.float32
            self.config = SimpleNamespace(cross_attention_dim=8)

        def forward(self, noisy: Tensor, *_: object, return_dict: bool) -> list[Tensor]:
            return [noisy * 0.9 if self.noise else torch.ones_like(noisy)]

    assert told({}, "2.x", Echo(True)) == "epsilon"
    assert told({}, "2.x", Echo(False)) == "v_prediction"
    assert told({"modelspec.prediction_type": "v"}, "2.x", Echo(True)) == "v_prediction"
    assert told({"modelspec.prediction_type": "epsilon"}, "2.x", Echo(False)) == "epsilon"
    assert told({}, "XL", Echo(False)) == "epsilon"
    save_file({"v_pred": torch.ones(1)}, tmp_path / "a.safetensors")
    file = single_file._File(tmp_path / "a.safetensors", "")
    assert single_file._prediction(file, "XL", Echo(True)) == "v_prediction"


def test_a_trained_denoiser_answers_noise_with_noise(tmp_path: Path) -> None:
    pocket = backbones.load("pocket")
    noise = torch.randn(1, *pocket.encode(torch.zeros(1, 3, 64, 64)).mean.shape[1:])
    answer = pocket.predict(noise, torch.tensor([999]), pocket.embed([""]))
    assert torch.cosine_similarity(answer.flatten(), noise.flatten(), dim=0) > 0.9
