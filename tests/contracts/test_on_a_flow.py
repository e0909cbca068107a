"""Every attack, purifier and score on a rectified flow with a transformer, as on a U-Net.

python -m pytest tests/contracts/test_on_a_flow.py
"""

import copy
from pathlib import Path

import pytest
import torch
from test_stage_contracts import ATTACKS, PURIFIERS, build, call, on_the_grid
from torch import Tensor

from shortcut_lightning import attacks, backbones, membership
from shortcut_lightning.attacks import SurrogateTraining
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.backbones.base import Posterior

SCORES = [
    membership.Loss(),
    membership.MonteCarlo(),
    membership.CLiDThreshold(),
    membership.CLiDTrees(),
    membership.PIA(),
    membership.PIA(normalize=True),
    membership.SimA(),
    membership.SecMI(20, 10),
    membership.PFAMI(),
    membership.ReDiffuse(),
    membership.GSA(),
    membership.LossPeak(),
    membership.ComplexityCalibrated(draws=2),
]


@pytest.fixture(scope="module")
def flow(small_sd3: Path) -> Backbone:
    model = backbones.load(str(small_sd3)).eval()
    model.max_sequence_length = 0  # type: ignore[assignment]
    return model.requires_grad_(False)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (2, 3, 32, 32), generator=generator) / 255


@pytest.mark.parametrize("kind", [k for k in ATTACKS + PURIFIERS if k is not attacks.NoAttack])
def test_stages_work_and_leave_the_model_as_it_was(
    kind: type, images: Tensor, flow: Backbone
) -> None:
    stage = build(kind)
    if hasattr(stage, "training"):
        stage.training = SurrogateTraining(num_class_images=0)
    if kind is attacks.SimAC:  # its features are those of a U-Net's decoder
        with pytest.raises(
            ValueError, match=r"SimAC's feature loss needs a UNet .*feature_weight to 0"
        ):
            call(stage, images, flow)
        stage.feature_weight = 0.0
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    out = call(stage, images, flow)
    assert out.shape == images.shape
    assert out.isfinite().all()
    assert on_the_grid(out)
    if kind in ATTACKS:
        assert (out - images).abs().max() * 255 <= stage.epsilon + 0.01
        assert not torch.equal(out, images)
    after = flow.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert torch.equal(call(stage, images, flow), out)


@pytest.mark.parametrize("score", SCORES, ids=lambda each: type(each).__name__)
def test_scores_answer_for_each_picture(
    score: membership.Score, images: Tensor, flow: Backbone
) -> None:
    captions = ["a photo of sks dog", "a dog on the beach"]
    features = score(images, captions, flow)
    assert features.shape[0] == 2
    assert features.isfinite().all()
    swapped = score(images.flip(0), captions[::-1], flow).flip(0)
    torch.testing.assert_close(swapped, features, rtol=1e-3, atol=1e-4)


NOISED = [
    membership.Loss(),
    membership.MonteCarlo(),
    membership.CLiDThreshold(),
    membership.GSA(n_t=2),
    membership.NoiseOptimization(timestep=700, iterations=1),
    membership.GradientMasking(),
]


@pytest.mark.parametrize("score", NOISED, ids=lambda each: type(each).__name__)
def test_the_model_is_told_the_timestep_at_which_latents_are(
    score: membership.Score, images: Tensor, flow: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published timesteps mean others here, for the noise and for the model alike."""
    latent = flow.encode(images[:1]).mean
    sure = Posterior(latent, torch.zeros_like(latent))
    monkeypatch.setattr(flow, "encode", lambda pictures: sure)
    told: list[tuple[Tensor, Tensor]] = []
    predict = flow.predict

    def listened(noisy: Tensor, timesteps: Tensor, conditioning: object) -> Tensor:
        told.append((noisy.detach(), timesteps))
        return predict(noisy, timesteps, conditioning)  # type: ignore[arg-type]

    monkeypatch.setattr(flow, "predict", listened)
    score(images[:1], ["a photo of sks dog"], flow)
    noisy, timesteps = told[0]
    a, b = flow.signal_and_sigma(timesteps)
    noise = (noisy - a * latent) / b
    assert noise.std() == pytest.approx(1, abs=0.1)
    assert (noise * latent).mean() / latent.square().mean() == pytest.approx(0, abs=0.15)


def test_a_model_that_fits_a_picture_has_the_smaller_loss(images: Tensor, flow: Backbone) -> None:
    """The score's direction, on a flow that answers with the truth for the first picture."""
    known = copy.deepcopy(flow)
    latent = known.encode(images[:1]).mean

    def knowing(noisy: Tensor, timesteps: Tensor, conditioning: object) -> Tensor:
        a, b = known.signal_and_sigma(timesteps)
        return (noisy - a * latent) / b - latent

    known.predict = knowing  # type: ignore[method-assign, assignment]
    loss = membership.Loss()(images, ["", ""], known)
    assert loss[0] > loss[1]


def test_an_ensemble_climbs_on_families_of_both_kinds(
    images: Tensor, flow: Backbone, small_sd: Path
) -> None:
    """One set of photographs, two latents of different kinds: neither alone decides."""
    settings = {"epsilon": 8, "step_size": 2, "rounds": 1, "surrogate_steps": 1, "steps": 2}
    training = SurrogateTraining(num_class_images=0)
    prompts = ["a photo"] * 2

    def protected(surrogates: list[str]) -> Tensor:
        attack = attacks.EASPL(**settings, surrogates=surrogates, training=training)  # type: ignore[arg-type]
        return attack(images, flow, prompts, generator=torch.Generator().manual_seed(0))

    both, alone = protected(["", str(small_sd)]), protected([""])
    assert (both - images).abs().max() * 255 <= 8.01
    assert not torch.equal(both, alone)
    assert not torch.equal(both, images)
