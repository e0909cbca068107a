"""The levels of a schedule and what predictions mean, for both kinds of models: what ran before
gives the same bits, and every identity of a Gaussian path holds.

python -m pytest tests/backbones/test_paths.py
"""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shortcut_lightning import backbones, draws
from shortcut_lightning.backbones.paths import (
    PREDICTIONS,
    RectifiedFlow,
    VariancePreserving,
    stable_diffusions,
    stable_diffusions_share,
)
from shortcut_lightning.purifiers.diffusion import LatentSpace, regenerated

STEPS = torch.tensor([0, 7, 450, 999])
FLOW = RectifiedFlow(torch.linspace(0.002, 1, 1000))
VP = VariancePreserving(stable_diffusions().float())


def noise(seed: int) -> Tensor:
    return torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_what_ran_before_gives_the_same_bits(kind: str, small_sd: Path, small_sd_v: Path) -> None:
    """The formulas as they stood in attacks, purifiers, scores and losses, written out."""
    model = backbones.load(str(small_sd if kind == "epsilon" else small_sd_v))
    x, p, eps = noise(0), noise(1), noise(2)
    alphas = model.alphas_cumprod()[STEPS].view(-1, 1, 1, 1)  # type: ignore[operator]
    a, b = alphas.sqrt(), (1 - alphas).sqrt()
    assert torch.equal(model.add_noise(x, eps, STEPS), a * x + b * eps)
    origin, found = model.origin_and_noise(x, p, STEPS)
    if kind == "epsilon":
        assert torch.equal(model.target(x, eps, STEPS), eps)
        assert torch.equal(origin, (x - b * p) / a)
        assert torch.equal(found, p)
    else:
        assert torch.equal(model.target(x, eps, STEPS), a * eps - b * x)
        assert torch.equal(origin, a * x - b * p)
        assert torch.equal(found, a * p + b * x)
    assert torch.equal(model.snr(STEPS), (alphas / (1 - alphas)).view(-1))
    drawn = torch.tensor([4, 5, 900])
    rows = [model.draw_timesteps(1, draws.generator(3, "timestep", n)) for n in drawn.tolist()]
    assert torch.equal(torch.cat(rows), draws.timesteps(1000, 3, "timestep", drawn))
    first, second = (torch.Generator().manual_seed(0) for _ in range(2))
    assert torch.equal(model.draw_timesteps(9, first), torch.randint(1000, (9,), generator=second))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_purifiers_walk_gives_the_same_bits(eta: float, small_sd: Path) -> None:
    model = backbones.load(str(small_sd)).requires_grad_(False)
    space, alphas = LatentSpace(model, ["a photo"]), model.alphas_cumprod()  # type: ignore[operator]
    data, g = noise(0)[:1].repeat(1, 1, 2, 2)[..., :4, :4], torch.Generator().manual_seed(1)
    x = alphas[90].sqrt() * data + (1 - alphas[90]).sqrt() * torch.randn(data.shape, generator=g)
    for now, then in ((90, 45), (45, 0), (0, -1)):
        alpha, later = alphas[now], alphas[then] if then >= 0 else torch.ones_like(alphas[0])
        found = model.predict(x, torch.tensor([now]), space.conditioning)
        clean = (x - (1 - alpha).sqrt() * found) / alpha.sqrt()
        variance = eta**2 * (1 - later) / (1 - alpha) * (1 - alpha / later)
        x = later.sqrt() * clean + (1 - later - variance).clamp(min=0).sqrt() * found
        if then >= 0 and eta > 0:
            x = x + variance.sqrt() * torch.randn(data.shape, generator=g)
    again = torch.Generator().manual_seed(1)
    assert torch.equal(regenerated(space, data, 90, again, steps=3, eta=eta), x)


@pytest.mark.parametrize(
    ("path", "kind"),
    [(VP, "epsilon"), (FLOW, "epsilon"), (VP, "v_prediction"), (FLOW, "flow")],
)
def test_a_true_prediction_gives_back_picture_and_noise(path: object, kind: str) -> None:
    steps = STEPS[1:-1]  # at the very end a flow's signal is zero
    clean, eps = noise(0)[:2].double(), noise(1)[:2].double()
    a, b = (each.sqrt().view(-1, 1, 1, 1).double() for each in path.powers(steps))  # type: ignore[attr-defined]
    noisy, meaning = a * clean + b * eps, PREDICTIONS[kind]
    target = meaning.target(clean, eps, a, b)
    origin, found = meaning.origin_and_noise(noisy, target, a, b)
    torch.testing.assert_close(origin, clean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, eps, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", [VP, FLOW])
def test_one_step_of_noise_after_another_is_one_step(path: object) -> None:
    """Var(x_t | x_0) = (a_t / a_r)^2 Var(x_r | x_0) + what the step adds."""
    then, now = (tuple(each.double() for each in path.powers(torch.tensor(t))) for t in (300, 700))  # type: ignore[attr-defined]
    added = path.fresh(now[0], then[0])  # type: ignore[attr-defined]
    assert float(now[0] / then[0] * then[1] + added) == pytest.approx(float(now[1]), rel=1e-5)
    assert added > 0


def test_published_timesteps_mean_the_same_signal_to_noise_ratio() -> None:
    """The shares that the specification computes, and the ratio at the flow's own timestep."""
    for t, share in ((100, 0.26), (200, 0.36), (450, 0.58), (600, 0.70)):
        assert stable_diffusions_share(t) == pytest.approx(share, abs=0.006)
        signal, noise_power = FLOW.powers(torch.tensor(FLOW.translated(t)))
        published = VP.powers(torch.tensor(t))
        ratio = float(signal / noise_power) / float(published[0] / published[1])
        assert ratio == pytest.approx(1, rel=0.02)
        assert VP.translated(t) == t
    assert torch.equal(FLOW.published, VP.published)


def test_nobody_above_asks_which_kind_a_model_is() -> None:
    package = Path(str(backbones.__file__)).parents[1]
    kinds = r"alphas_cumprod|prediction_type|VariancePreserving|RectifiedFlow|FlowTransformer"
    asking = [
        path
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] not in ("backbones", "pocket")  # below, it trains one
        and re.search(kinds, path.read_text("utf-8"))
    ]
    assert not asking
