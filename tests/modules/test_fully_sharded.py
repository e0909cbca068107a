"""A denoiser in parts, on two processes: python -m pytest tests/modules/test_fully_sharded.py"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import load_file
from test_exact_runs import learned, parts, trainer
from torch import nn

from shortcut_lightning.callbacks.ema import EMA
from shortcut_lightning.callbacks.export import Export
from shortcut_lightning.modules import DreamBooth
from shortcut_lightning.modules.fully_sharded import (
    FullySharded,
    _left_out,
    _refuse,
    fill,
    hollow,
)

STEPS = 4
METHODS: dict[str, dict[str, Any]] = {"full": {}, "lora": {"method": "lora", "rank": 2}}


def run(
    folder: Path,
    model: Path,
    photos: Path,
    method: str,
    devices: int,
    start: Path | None = None,
    strategy: FullySharded | None = None,
) -> DreamBooth:
    """Trains to the end; leaves checkpoints of all steps, an export, and each rank's weights."""
    module, data = parts(model, photos, batch_size=2 // devices, **METHODS[method])
    saver = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    callbacks = [EMA(0.5), saver, Export()]
    sharded: dict[str, Any] = {"devices": devices, "strategy": strategy} if strategy else {}
    logger = CSVLogger(folder, "run", "")
    trained = trainer(folder, STEPS, *callbacks, logger=logger, gradient_clip_val=1.0, **sharded)
    trained.fit(module, data, ckpt_path=start)
    torch.save(learned(module), folder / f"rank{trained.global_rank}.pt")
    return module


def run_apart(folder: Path, model: Path, photos: Path, rest: str) -> None:
    """`run` in processes of its own."""
    words = [str(path) for path in (folder, model, photos)]
    script = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from pathlib import Path\nfrom test_fully_sharded import FullySharded, run\n"
        f"run(*map(Path, {words!r}), {rest})\n"
    )
    folder.mkdir()
    (folder / "run.py").write_text(script)
    own = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(folder / "run.py")], env=own, check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "part", "kind", "method"),
    [
        ("small_sd", "unet", "UNet2DConditionModel", "full"),
        ("small_sd", "unet", "UNet2DConditionModel", "lora"),
        ("small_sd3", "transformer", "SD3Transformer2DModel", "full"),
    ],
)
def test_two_processes_with_a_part_each_end_in_the_weights_of_one(
    family: str,
    part: str,
    kind: str,
    method: str,
    request: pytest.FixtureRequest,
    photos: Path,
    tmp_path: Path,
) -> None:
    """With an average, and clipping. A checkpoint of the two goes on in one."""
    model: Path = request.getfixturevalue(family)
    alone, both, again = (tmp_path / name for name in ("alone", "both", "again"))
    start = learned(parts(model, photos, **METHODS[method])[0])
    module = run(alone, model, photos, method, 1)
    run_apart(both, model, photos, f"{method!r}, 2, strategy=FullySharded()")
    run(again, model, photos, method, 1, both / "step=2.ckpt")

    wanted = learned(module)
    way = sum(((start[name] - value) ** 2).sum() for name, value in wanted.items())
    for file in (both / "rank0.pt", both / "rank1.pt", again / "rank0.pt"):
        found = torch.load(file, weights_only=True)
        error = sum(((found[name] - value) ** 2).sum() for name, value in wanted.items())
        assert error < 1e-5 * way, file  # sums in another order
    export = both / "run" / "export"
    facts = json.loads((export / "model" / part / "config.json").read_text())
    assert facts["_class_name"] == kind
    name = {
        "full": f"model/{part}/diffusion_pytorch_model.safetensors",
        "lora": "pytorch_lora_weights.safetensors",
    }[method]
    exported, expected = (load_file(folder / "run" / "export" / name) for folder in (both, alone))
    assert exported.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(exported[key], value, atol=1e-3, rtol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "devices"), [("full", 1), ("lora", 2)])
def test_weights_that_stay_with_the_host_learn_the_same(
    method: str, devices: int, small_sd: Path, photos: Path, tmp_path: Path
) -> None:
    alone, offloaded = tmp_path / "alone", tmp_path / "offloaded"
    start = learned(parts(small_sd, photos, **METHODS[method])[0])
    wanted = learned(run(alone, small_sd, photos, method, 1))
    strategy = "strategy=FullySharded(offload=True)"
    run_apart(offloaded, small_sd, photos, f"{method!r}, {devices}, {strategy}")
    found = torch.load(offloaded / "rank0.pt", weights_only=True)
    way = sum(((start[name] - value) ** 2).sum() for name, value in wanted.items())
    error = sum(((found[name] - value) ** 2).sum() for name, value in wanted.items())
    assert error < 1e-5 * way
    assert (offloaded / "run" / "export").is_dir()


def test_a_denoiser_that_stays_with_the_host_is_left_out_when_the_rest_moves() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    names = list(module.state_dict())
    with _left_out(module, module[0]):
        module.to("meta")
    assert [each.weight.is_meta for each in module] == [False, True]
    assert list(module.state_dict()) == names


def test_a_hollow_copy_is_filled() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    network[0].bias.requires_grad_(False)
    empty = hollow(network)
    assert all(parameter.is_meta for parameter in empty.parameters())
    fill(empty, network)
    for one, other in zip(network.parameters(), empty.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.requires_grad == other.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_text_encoder": True}, "model.train_text_encoder to false"),
        ({"new_tokens": ["<s>"]}, "model.new_tokens empty"),
    ],
)
def test_what_cannot_be_divided_is_refused_in_a_line(
    options: dict[str, Any], message: str, small_sd: Path
) -> None:
    with pytest.raises(ValueError, match=f"FullySharded: the denoiser alone is divided.*{message}"):
        _refuse(DreamBooth(str(small_sd), **options))
