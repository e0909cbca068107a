"""The kinds of stages, and every score, on the families of flows that are no Stable Diffusion:
packed latents, a T5 or a language model as text encoder, time that runs the other way.

python -m pytest tests/contracts/test_on_other_flows.py
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flow_models import (
    write_small_flux,
    write_small_klein,
    write_small_qwen_image,
    write_small_z_image,
)
from test_on_a_flow import SCORES
from test_stage_contracts import build, call, on_the_grid
from torch import Tensor

from shortcut_lightning import attacks, backbones, membership, purifiers
from shortcut_lightning.attacks import SurrogateTraining
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.membership.reducers import GaussianNoise

WRITE: dict[str, Callable[[Path], Path]] = {
    "flux": write_small_flux,
    "klein": write_small_klein,
    "qwen-image": write_small_qwen_image,
    "z-image": write_small_z_image,
}
# The encoder alone, the loss at fixed weights, the same with a model that learns beside it, an
# edit; noise and back, and back by the autoencoder of another.
STAGES = [
    attacks.PhotoGuardEncoder,
    attacks.AdvDM,
    attacks.ASPL,
    attacks.PhotoGuardDiffusion,
    purifiers.SDEdit,
    purifiers.GridPure,
]


@pytest.fixture(params=list(WRITE), scope="module")
def flow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = WRITE[request.param](tmp_path_factory.mktemp("flows") / request.param)
    return backbones.load(str(folder)).eval().requires_grad_(False)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, 3, 32, 32), generator=generator) / 255


@pytest.mark.parametrize("kind", STAGES)
def test_stages_work_and_leave_the_model_as_it_was(
    kind: type, images: Tensor, flow: Backbone
) -> None:
    stage = build(kind)
    if hasattr(stage, "training"):
        stage.training = SurrogateTraining(num_class_images=0)
    for name, least in {"iterations": 1, "strength": 0.01}.items():  # networks answer slowly
        if hasattr(stage, name):
            setattr(stage, name, least)
    before = flow.fingerprint()
    out = call(stage, images, flow)
    assert out.isfinite().all()
    assert on_the_grid(out)
    assert not torch.equal(out, images)
    if hasattr(stage, "epsilon"):
        assert (out - images).abs().max() * 255 <= stage.epsilon + 0.01
    assert flow.fingerprint() == before


NOISY = membership.CLiDThreshold(reducer=GaussianNoise())


@pytest.mark.parametrize("score", [*SCORES, NOISY], ids=lambda each: type(each).__name__)
def test_scores_answer_for_each_picture(
    score: membership.Score, images: Tensor, flow: Backbone
) -> None:
    captions = ["a photo of sks dog", "a dog on the beach"]
    features = score(images, captions, flow)
    assert features.shape[0] == 2
    assert features.isfinite().all()
    swapped = score(images.flip(0), captions[::-1], flow).flip(0)
    torch.testing.assert_close(swapped, features, rtol=1e-3, atol=1e-4)
