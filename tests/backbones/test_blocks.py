"""Some blocks computed again, and an autoencoder that comes and goes: python -m pytest
tests/backbones/test_blocks.py"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flow_models import (
    write_small_flux,
    write_small_klein,
    write_small_qwen_image,
    write_small_sd3_with_t5,
    write_small_z_image,
)
from layouts import write_layout
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from shortcut_lightning import backbones
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.backbones.blocks import at_once, blocks
from shortcut_lightning.backbones.memory import Training, budget
from shortcut_lightning.cli import main
from shortcut_lightning.freezing import on_device
from shortcut_lightning.membership.model import Model
from shortcut_lightning.modules import DreamBooth
from shortcut_lightning.modules.settings import Compute

FAMILIES: dict[str, Callable[[Path], Path]] = {
    "sd3": write_small_sd3_with_t5,
    "flux": write_small_flux,
    "klein": write_small_klein,
    "z_image": write_small_z_image,
    "qwen_image": write_small_qwen_image,
}


@pytest.fixture(params=["small_sd", "small_sdxl", *FAMILIES])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if write := FAMILIES.get(request.param):
        return write(tmp_path / "model")
    folder: Path = request.getfixturevalue(request.param)
    return folder


def step(path: Path, names: tuple[str, ...] | None) -> tuple[list[Tensor], int, list[str]]:
    """Gradients of the denoiser, bytes kept for the backward pass, and the blocks that were
    computed again; without checkpointing where `names` is None."""
    torch.manual_seed(0)
    compute = Compute(gradient_checkpointing=names is not None, checkpointed_blocks=names or ())
    backbone = DreamBooth(str(path), compute=compute).backbone
    network = backbone.denoiser.train()
    calls: dict[str, int] = {}
    for name, module in network.named_modules():
        if module in set(blocks(network)):
            # Before it: computing again stops where all is there that was asked for.
            module.register_forward_pre_hook(
                lambda *_, n=name: calls.update({n: calls.get(n, 0) + 1})
            )
    found: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        found.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    side = backbone.resolution // backbone.downsampling
    latents = backbone.encode(torch.rand(1, 3, backbone.resolution, backbone.resolution)).mean
    assert latents.shape[-1] == side
    with torch.no_grad():
        latents, words = latents.detach(), backbone.embed(["a dog"])
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        predicted = backbone.predict(latents, torch.tensor([1]), words)
    kept = sum(each.untyped_storage().nbytes() for each in found.values())
    predicted.square().mean().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return gradients, kept, [name for name, count in calls.items() if count > 1]


def test_blocks_of_a_name_are_computed_again(model: Path) -> None:
    network = DreamBooth(str(model)).backbone.denoiser
    last = [name for name, module in network.named_modules() if module in set(blocks(network))][-1]
    group = last.split(".")[0]  # such as up_blocks, single_transformer_blocks, layers
    plain, everything, _ = step(model, None)
    gradients, kept, again = step(model, (group,))
    assert again
    assert all(name.startswith(group) for name in again)
    for one, other in zip(plain, gradients, strict=True):
        torch.testing.assert_close(one, other)
    _, least, all_again = step(model, ())
    assert set(again) <= set(all_again)
    assert least <= kept < everything


def test_a_pattern_chooses_in_every_group(small_sd: Path) -> None:
    again = step(small_sd, (r"resnets\.0",))[2]
    assert again
    assert all(name.endswith("resnets.0") for name in again)
    assert len({name.split(".")[0] for name in again}) > 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such", "no block of the denoiser is called or lies in 'no_such'; it has down_blocks"),
        ("conv_in", "no block of the denoiser"),
        ("(", r"'\(' is no pattern"),
    ],
)
def test_names_that_choose_nothing(name: str, message: str, small_sd: Path) -> None:
    compute = Compute(gradient_checkpointing=True, checkpointed_blocks=(name,))
    with pytest.raises(ValueError, match=f"^model.compute.checkpointed_blocks: {message}"):
        DreamBooth(str(small_sd), compute=compute)


def test_the_budget_counts_them(small_sdxl: Path, tmp_path: Path) -> None:
    def of(path: Path, **more: Any) -> float:
        found = budget(str(path), Training("full", half=False, resolution=64, **more))
        assert found is not None
        return found.activations

    flow = write_layout(tmp_path, "z_image")
    for path, some in ((small_sdxl, "up_blocks"), (flow, "layers")):
        none, every = of(path), of(path, gradient_checkpointing=True)
        part = of(path, gradient_checkpointing=True, checkpointed_blocks=(some,))
        assert every < part < none


def test_at_once_are_two_blocks_and_what_lies_around() -> None:
    class Network(nn.Module):
        _no_split_modules = ("Linear",)

        def __init__(self) -> None:
            super().__init__()
            self.around = nn.LayerNorm(3)
            self.blocks = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 5), nn.Linear(5, 3)])

    assert at_once(Network()) == 6 + 2 * 20
    assert at_once(nn.Linear(2, 2)) == 6


def freed(path: Path) -> tuple[Backbone, Backbone]:
    one, other = (backbones.load(str(path)).eval() for _ in range(2))
    other.frees_autoencoder = True
    return one, other


def test_a_freed_autoencoder_gives_the_same(model: Path) -> None:
    usual, free = freed(model)
    free.enable_gradient_checkpointing()
    pictures = torch.rand(2, 3, usual.resolution, usual.resolution)
    results = []
    for backbone in (usual, free):
        given = pictures.clone().requires_grad_()
        posterior = backbone.encode(given)
        shown = backbone.decode(posterior.mean)
        (shown.square().mean() + posterior.std.mean()).backward()
        assert given.grad is not None
        drawn = backbone.sample(["a dog"], seeds=[0], num_inference_steps=2)
        results.append([posterior.mean, posterior.std, shown, given.grad, drawn])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_it_stays_on_the_cpu(model: Path, gpu: torch.device) -> None:
    usual, free = freed(model)
    free.to(gpu)
    autoencoder: nn.Module = free.vae  # type: ignore[assignment]
    pictures = torch.rand(1, 3, usual.resolution, usual.resolution)
    given = pictures.to(gpu).requires_grad_()
    posterior = free.encode(given)
    assert posterior.mean.device == gpu
    posterior.mean.square().mean().backward()
    assert given.grad is not None
    assert given.grad.device == gpu
    torch.testing.assert_close(posterior.mean.detach().cpu(), usual.encode(pictures).mean)
    drawn = free.sample(["a dog"], seeds=[0], num_inference_steps=2)
    assert drawn.shape[-1] == usual.resolution
    assert {each.device.type for each in autoencoder.parameters()} == {"cpu"}
    assert {each.device for each in free.denoiser.parameters()} == {gpu}


def test_a_run_with_both(small_sd: Path, tmp_path: Path) -> None:
    options = {
        "model.pretrained_model_name_or_path": small_sd,
        "model.compute.gradient_checkpointing": "true",
        "model.compute.checkpointed_blocks": "[up_blocks]",
        "model.compute.free_autoencoder": "true",
        "data.instance_data_dir": "pocket:20",
        "trainer.max_steps": 1,
        "trainer.callbacks": "[]",
        "seed_everything": 0,
        "output_dir": tmp_path,
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    main(["fit", "--config", "quickstart", *words])
    config = next(tmp_path.rglob("config.yaml")).read_text()
    assert "free_autoencoder: true" in config
    assert "- up_blocks" in config


@pytest.mark.parametrize(
    "compute",
    [
        Compute(free_autoencoder=True),
        Compute(cache_text_embeddings=True, free_text_encoders=True),
    ],
)
def test_what_stays_on_the_cpu_is_left_alone_by_ddp(
    compute: Compute, small_sd: Path, gpu: torch.device, tmp_path: Path
) -> None:
    module = DreamBooth(str(small_sd), method="lora", compute=compute).to(gpu)
    assert {each.device.type for each in module.parameters()} == {gpu.type, "cpu"}
    store = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        DistributedDataParallel(module)
    finally:
        torch.distributed.destroy_process_group()


def test_where_a_model_is_asked_of_what_computes(small_sd: Path, gpu: torch.device) -> None:
    _, free = freed(small_sd)
    free.to(gpu)
    assert Model(free).device == gpu
    with on_device(free, torch.device("cpu")):
        assert free.device == torch.device("cpu")
    assert free.device == gpu
    assert {each.device for each in free.denoiser.parameters()} == {gpu}
