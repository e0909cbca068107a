"""The memory of a training, from configurations alone: python -m pytest tests/backbones"""

import json
import re
import shutil
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml
from flow_models import write_small_flux
from layouts import LAYOUTS, write_layout

from shortcut_lightning import backbones
from shortcut_lightning.backbones.memory import GIB, Training, budget
from shortcut_lightning.callbacks import Export
from shortcut_lightning.cli import main
from shortcut_lightning.cli.memory import told
from shortcut_lightning.modules import DreamBooth
from shortcut_lightning.modules.settings import Compute

CONFIGS = Path(__file__).parents[2] / "configs"


class Config(dict):
    """A configuration as the command line holds it, for what is asked of it."""

    def __getattr__(self, name: str) -> "Config":
        return Config(self[name]) if isinstance(self[name], dict) else self[name]


@pytest.mark.parametrize("recipe", list(LAYOUTS))
def test_a_recipe_states_what_fit_tells(recipe: str, tmp_path: Path) -> None:
    text = (CONFIGS / f"{recipe}.yaml").read_text()
    config = Config(yaml.safe_load(text))
    folder = write_layout(tmp_path, recipe)
    config["model"]["init_args"]["pretrained_model_name_or_path"] = str(folder)
    line = told(config).removeprefix("memory: ")
    comment = " ".join(each[2:] for each in text.splitlines() if each.startswith("# "))
    assert f"before anything is loaded: {line}." in re.sub(r"\s+", " ", comment)
    found = re.search(r"device: ([\d.]+) billion weights", line)
    assert found is not None
    assert float(found[1]) == pytest.approx(LAYOUTS[recipe][2], rel=0.1)


def test_the_command_line_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_layout(tmp_path / "model", "flux")
    data = ("--data.instance_data_dir", "pocket:20", "--output_dir", str(tmp_path))
    model = ("--model.pretrained_model_name_or_path", str(folder))
    with pytest.raises(SystemExit):  # there are no weights
        main(["fit", "--config", "flux", *model, *data, "--model.sampling.guidance_scale", "1"])
    said = "".join(capsys.readouterr())
    line = next(each for each in said.splitlines() if each.startswith("memory: "))
    comment = [each[2:] for each in (CONFIGS / "flux.yaml").read_text().splitlines()]
    assert f"before anything is loaded: {line.removeprefix('memory: ')}." in " ".join(comment)


def test_counts_are_those_of_the_model_itself(tmp_path: Path) -> None:
    folder = write_small_flux(tmp_path / "model")
    settings = {"method": "lora", "rank": 3, "train_text_encoder": True}
    module = DreamBooth(str(folder), compute=Compute(frozen_dtype="bf16"), **settings)
    found = budget(str(folder), Training(frozen_dtype="bf16", **settings))
    assert found is not None
    model = module.backbone
    learns = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert found.trained * GIB == 4 * learns
    assert found.optimiser * GIB == 8 * learns
    frozen = [p for p in model.denoiser.parameters() if not p.requires_grad]
    assert found.denoiser * GIB == sum(p.numel() * p.element_size() for p in frozen)
    text = [p for p in model.text_encoders.parameters() if not p.requires_grad]
    assert found.text_encoders * GIB == sum(p.numel() * p.element_size() for p in text)


@pytest.mark.parametrize("text", [True, False])
def test_text_encoders_that_learn_themselves_are_counted_once(text: bool, tmp_path: Path) -> None:
    folder = write_small_flux(tmp_path / "model")
    found = budget(str(folder), Training("full", train_text_encoder=text))
    module = DreamBooth(str(folder), method="full", train_text_encoder=text)
    assert found is not None
    model = module.backbone
    frozen = [p for p in model.text_encoders.parameters() if not p.requires_grad]
    assert found.text_encoders * GIB == 4 * sum(p.numel() for p in frozen)
    learns = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert found.trained * GIB == 4 * learns


def test_activations_grow_as_they_must(tmp_path: Path) -> None:
    folder = str(write_layout(tmp_path, "z_image"))

    def of(**more: object) -> float:  # without copies of the weights in 16 bits
        settings = {"resolution": 1024, "frozen_dtype": "bf16", **more}
        found = budget(folder, Training(**settings))  # type: ignore[arg-type]
        assert found is not None
        return found.activations

    assert of(train_batch_size=2) == pytest.approx(2 * of())
    assert of(with_prior_preservation=True) == pytest.approx(2 * of())
    assert of(half=False) == pytest.approx(2 * of())
    assert of(gradient_checkpointing=True) < of() / 10
    tokens, width, blocks = 64 * 64 + 512, 3840, 30 + 2 * 2
    assert of() * GIB == tokens * width * 34 * blocks


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_a_unet_keeps_is_what_autograd_keeps(method: str, small_sdxl: Path) -> None:
    module = DreamBooth(str(small_sdxl), method=method)  # type: ignore[arg-type]
    network = module.backbone.denoiser.train()
    own = {each.data_ptr() for each in network.state_dict().values()}
    found: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            found.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    side = network.config.sample_size
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        conditioning = module.backbone.embed(["a dog"] * 2)
        noisy = torch.zeros(2, 4, side, side)
        module.backbone.predict(noisy, torch.tensor([1, 2]), conditioning)
    kept = sum(each.untyped_storage().nbytes() for each in found.values())

    def counted(**more: bool) -> float:
        settings = Training(method, train_batch_size=2, half=False, **more)
        found = budget(str(small_sdxl), settings)
        assert found is not None
        return found.activations * GIB

    assert counted() == pytest.approx(kept, rel=0.05)
    assert counted(gradient_checkpointing=True) < 0.8 * counted()


def test_several_subjects_take_what_one_takes(tmp_path: Path) -> None:
    folder = write_layout(tmp_path, "sd15")
    model = {"init_args": {"pretrained_model_name_or_path": str(folder)}}
    data = {"init_args": {"train_batch_size": 4, "resolution": 768}}
    several = {"init_args": {"subjects": {"a": data, "b": data}}}
    trainer = {"precision": "bf16-mixed"}
    alone = told(Config(model=model, data=data, trainer=trainer))
    assert alone == told(Config(model=model, data=several, trainer=trainer))
    assert alone != told(Config(model=model, data={}, trainer=trainer))


def test_a_divided_denoiser_is_counted_in_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_layout(tmp_path / "model", "sdxl")
    whole = budget(str(folder), Training("full"))
    four = budget(str(folder), Training("full", processes=4))
    host = budget(str(folder), Training("full", offload=True))
    assert whole is not None
    assert four is not None
    assert host is not None
    assert four.optimiser == whole.optimiser / 4
    assert four.text_encoders == host.text_encoders == whole.text_encoders
    assert host.host == whole.trained + whole.gradients + whole.optimiser
    assert host.trained == host.optimiser == 0
    # Around the blocks and twice the largest: a small part of a model of 2.6 billion.
    assert 0 < host.visiting < 0.2 * (whole.trained + whole.gradients)
    assert host.peak < four.peak < whole.peak

    options = {
        "model.pretrained_model_name_or_path": folder,
        "model.method": "full",
        "data.instance_data_dir": "pocket:20",
        "output_dir": tmp_path,
        "trainer.accelerator": "cpu",
        "trainer.devices": 2,
        "trainer.strategy": "shortcut_lightning.modules.fully_sharded.FullySharded",
        "trainer.strategy.offload": "true",
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    with pytest.raises(SystemExit):  # there are no weights
        main(["fit", "--config", "sdxl", *words])
    said = "".join(capsys.readouterr())
    line = next(each for each in said.splitlines() if each.startswith("memory: "))
    assert "blocks while they compute" in line
    assert "; the host holds " in line


def test_small_and_unknown_models_are_passed_over(small_sd: Path, tmp_path: Path) -> None:
    model = {"init_args": {"pretrained_model_name_or_path": str(small_sd)}}
    assert told(Config(model=model, trainer={"precision": None})) == ""
    small = write_small_flux(tmp_path / "model")
    for path in ("pocket", "pocket-flow", str(small), str(tmp_path)):
        model = {"init_args": {"pretrained_model_name_or_path": path}}
        assert told(Config(model=model, trainer={"precision": None})) == ""


def test_text_encoders_are_freed_between_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_small_flux(tmp_path / "model")
    freed = Compute(cache_text_embeddings=True, free_text_encoders=True)
    module = DreamBooth(str(folder), method="lora", compute=freed)
    usual = DreamBooth(str(folder), method="lora", compute=Compute(cache_text_embeddings=True))
    model = module.backbone
    encoders = [model.text_encoder, model.text_encoder_2]
    asked_of: list[str] = []
    for encoder in encoders:
        encoder.register_forward_hook(lambda each, *_: asked_of.append(type(each).__name__))
    places = [each.data_ptr() for encoder in encoders for each in encoder.parameters()]
    # Where they lie is theirs; elsewhere is a copy that goes.
    moved = torch.Tensor.to
    copies: list[int] = []

    def to(tensor: torch.Tensor, *where: object, **more: object) -> torch.Tensor:
        found = moved(tensor, *where, **more)
        if where == (model.device,) and found.data_ptr() in places:
            found = found.clone()
            copies.append(found.data_ptr())
        return found

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", to)
        assert (module.embed(["a dog"]).hidden == usual.embed(["a dog"]).hidden).all()
    assert len(copies) == len(places)
    assert places == [each.data_ptr() for encoder in encoders for each in encoder.parameters()]
    assert len(asked_of) == 2
    module.embed(["a dog", "a dog"])
    assert len(asked_of) == 2
    asked = {"seeds": [0], "num_inference_steps": 2}
    assert (model.sample(["a dog"], **asked) == usual.backbone.sample(["a dog"], **asked)).all()
    before = list(model._modules)
    module.double()
    assert next(model.denoiser.parameters()).dtype == torch.float64
    assert next(model.text_encoder.parameters()).dtype == torch.float32
    assert list(model._modules) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"compute": Compute(frozen_dtype="nf4"), "method": "full"},
            "model.compute.frozen_dtype nf4 .*model.method to",
        ),
        (
            {"compute": Compute(frozen_dtype="nf4"), "lora": "a"},
            "model.compute.frozen_dtype nf4 .*model.lora empty",
        ),
    ],
)
def test_what_cannot_go_together(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DreamBooth(**{"method": "lora", **settings})  # type: ignore[arg-type]


def test_four_bits_need_bitsandbytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_small_flux(tmp_path / "model")
    monkeypatch.setattr("shortcut_lightning.backbones.pipelines.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"frozen_dtype is nf4, .* install .*\[gpu\]"):
        backbones.load(str(folder), nf4=True)


def test_a_whole_model_of_four_bits_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four bits themselves need a GPU; what is asked is whether diffusers put them there."""
    module = DreamBooth(str(write_small_flux(tmp_path / "model")), method="lora")
    monkeypatch.setattr(module.backbone.denoiser, "hf_quantizer", object(), raising=False)
    trainer = pl.Trainer(logger=False, accelerator="cpu")
    Export(pipeline=False).on_fit_start(trainer, module)
    with pytest.raises(ValueError, match=r"cannot be written from 4 bits .*pipeline: false"):
        Export().on_fit_start(trainer, module)


def test_what_is_broken_is_left_to_loading_to_say(small_sd: Path, tmp_path: Path) -> None:
    """Another family's folder by its name, and one whose settings fit no network."""
    folder = shutil.copytree(small_sd, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    flux = write_small_flux(tmp_path / "flux")
    settings = json.loads((flux / "transformer" / "config.json").read_text())
    (flux / "transformer" / "config.json").write_text(json.dumps(settings | {"num_layers": -1}))
    for path in (folder, flux):
        model = {"init_args": {"pretrained_model_name_or_path": str(path)}}
        assert told(Config(model=model, trainer={"precision": None})) == ""
