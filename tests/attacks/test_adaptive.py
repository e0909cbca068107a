"""Attacks that know the defence, and when to doubt them: python -m pytest tests/attacks"""

from collections.abc import Callable
from functools import cached_property

import naive
import pytest
import torch
from fake_model import FakeBackbone
from naive import PROMPTS, agree, from_model, ours, photos, to_model
from torch import Tensor

from shortcut_lightning.attacks import Adaptive, AdvDM, NoAttack, RandomNoise, soundness
from shortcut_lightning.attacks.adaptive import purified
from shortcut_lightning.attacks.convergence import convergence
from shortcut_lightning.attacks.pgd import Watch, sign_pgd
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.files.cache import describe
from shortcut_lightning.prompts import Decoupling
from shortcut_lightning.purifiers import (
    Gaussian,
    GridPure,
    Jpeg,
    OptimalStep,
    Oracle,
    OtherAutoencoder,
    Purifier,
    Resize,
    SDEdit,
    TotalVariation,
)


class Dice(Purifier):
    """Random and without a gradient."""

    random = True

    def run(self, images: Tensor, backbone: object, prompts: object, generator: torch.Generator):
        return (images * 4).round() / 4 + 0.1 * torch.rand((), generator=generator)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


NOISY = Decoupling(training=True, noise="xx noise")
UNCLEANED = Decoupling(training=True, noise="xx noise", purified_too=False)


@pytest.mark.parametrize("decoupling", [Decoupling(), NOISY, UNCLEANED])
def test_adaptive(noise_model: Backbone, decoupling: Decoupling) -> None:
    """EOT over {identity, purifier}, gradients of two draws averaged, BPDA through JPEG; each seen
    with the prompt that the defence would train it on."""
    model, g, x0 = noise_model, generator(), photos()
    said = [p + ", xx noise" for p in PROMPTS] if decoupling.training else PROMPTS
    x = (x0 + (2 * torch.rand(x0.shape, generator=g) - 1) * 5 / 255).clamp(0, 1)
    for _ in range(2):
        slopes = []
        for _ in range(2):
            leaf = x.detach().requires_grad_()
            seen, words = leaf, said
            if torch.rand((), generator=g).item() >= 0.5:
                words = said if decoupling.purified_too else PROMPTS
                compressed = Jpeg(50)(leaf.detach(), model, PROMPTS, generator=g)
                # Forward the compressed, backward as if nothing had happened.
                seen = leaf + compressed - leaf.detach()
            cost = naive.loss(model, to_model(seen), words, g)
            slopes.append(torch.autograd.grad(cost, leaf)[0])
        moved = x + 2 / 255 * (sum(slopes) / 2).sign()
        x = (x0 + (moved - x0).clamp(-5 / 255, 5 / 255)).clamp(0, 1)
    attack = Adaptive(
        5, step_size=2, steps=2, purifiers=[Jpeg(50)], samples=2, decoupling=decoupling
    )
    with pytest.warns(UserWarning, match="2 steps are too few"):
        got = ours(attack, model, photos())
    assert agree(got, x, share=0.97)


def test_without_purification_it_is_advdm(noise_model: Backbone) -> None:
    """But for the coin, which is drawn between the start and the steps."""
    g, x0 = generator(), to_model(photos())
    noise = torch.rand(x0.shape, generator=g)
    x = (x0 + (2 * noise - 1) * 10 / 255).clamp(-1, 1)

    def objective(x: Tensor) -> Tensor:
        torch.rand((), generator=g)
        return naive.loss(noise_model, x, PROMPTS, g)

    expected = naive.pgd(x0, x, 2, 4 / 255, 10 / 255, objective)
    with pytest.warns(UserWarning, match="too few"):
        got = ours(Adaptive(5, step_size=2, steps=2), noise_model, photos())
    assert agree(got, from_model(expected))


def gradient_of(chain: list[Purifier]) -> tuple[Tensor, Tensor]:
    images = photos().requires_grad_()
    seen = purified(images, chain, FakeBackbone(), PROMPTS, generator())
    weights = torch.arange(seen.numel()).reshape(seen.shape).float()
    return seen.detach(), torch.autograd.grad((seen * weights).sum(), images)[0]


def test_differentiable_purifiers_are_differentiated() -> None:
    seen, slope = gradient_of([Gaussian(1.0)])
    images = photos().requires_grad_()
    blurred = Gaussian(1.0).run(images, FakeBackbone(), PROMPTS, generator())
    weights = torch.arange(seen.numel()).reshape(seen.shape).float()
    torch.testing.assert_close(seen, blurred.detach().clamp(0, 1))
    torch.testing.assert_close(slope, torch.autograd.grad((blurred * weights).sum(), images)[0])


@pytest.mark.parametrize("purifier", [Jpeg(30), Dice()])
def test_others_are_the_identity_backwards(purifier: Purifier) -> None:
    seen, slope = gradient_of([purifier])
    expected = purifier(photos(), FakeBackbone(), PROMPTS, generator=generator())
    torch.testing.assert_close(seen, expected)
    torch.testing.assert_close(slope, torch.arange(seen.numel()).reshape(seen.shape).float())


class Masking(Purifier):
    """Hides its gradient, and says what comes near."""

    def run(self, images: Tensor, backbone: object, prompts: object, generator: object) -> Tensor:
        return (images * 4).round() / 4

    def stand_in(self, images: Tensor) -> Tensor:
        return images.square()


def test_stand_ins_are_differentiated_instead() -> None:
    seen, slope = gradient_of([Masking()])
    expected = Masking()(photos(), FakeBackbone(), PROMPTS, generator=generator())
    torch.testing.assert_close(seen, expected)
    weights = torch.arange(seen.numel()).reshape(seen.shape).float()
    torch.testing.assert_close(slope, 2 * photos() * weights)


def test_all_are_the_identity_backwards_where_that_is_wanted() -> None:
    images = photos().requires_grad_()
    blur = Gaussian(1.0)
    seen = purified(images, [blur], FakeBackbone(), PROMPTS, generator(), exact_gradients=False)
    expected = blur(photos(), FakeBackbone(), PROMPTS, generator=generator())
    torch.testing.assert_close(seen, expected)
    (slope,) = torch.autograd.grad(seen.sum(), images)
    torch.testing.assert_close(slope, torch.ones_like(slope))


DIFFERENTIABLE = [
    SDEdit(),
    OptimalStep(),
    GridPure(),
    Resize(),
    Resize(filter="lanczos"),
    TotalVariation(),
    OtherAutoencoder(),
]


@pytest.mark.parametrize("purifier", DIFFERENTIABLE, ids=lambda each: type(each).__name__)
def test_what_calls_itself_differentiable_is(purifier: Purifier) -> None:
    assert purifier.differentiable
    _, slope = gradient_of([purifier])
    assert slope.isfinite().all()
    assert slope.abs().sum() > 0


def test_a_chain_is_both() -> None:
    _, alone = gradient_of([Gaussian(1.0)])
    _, behind = gradient_of([Gaussian(1.0), Jpeg(95)])
    torch.testing.assert_close(alone, behind)


def distance_after(attack: Adaptive | AdvDM, chain: list[Purifier]) -> float:
    """How far purified latents of the fake moved."""
    model = FakeBackbone().eval()
    images = photos(side=16)
    made = attack(images, model, PROMPTS, generator=generator())
    ends = [
        model.encode(purified(each, chain, model, PROMPTS, generator())).mean
        for each in (made, images)
    ]
    return (ends[0] - ends[1]).norm().item()


class Half(Purifier):
    """Keeps every second column and fills the others from their left neighbour."""

    differentiable = True

    def run(self, images: Tensor, backbone: object, prompts: object, generator: object) -> Tensor:
        return images[..., ::2].repeat_interleave(2, dim=-1)


@pytest.mark.filterwarnings("ignore:Adaptive")
def test_knowing_the_purifier_helps() -> None:
    adaptive = Adaptive(8, steps=10, purifiers=[Half()], identity=0.0, loss="latents")
    unaware = Adaptive(8, steps=10, purifiers=[], loss="latents")
    assert distance_after(adaptive, [Half()]) >= distance_after(unaware, [Half()])


def said(attack: object, chain: list[Purifier]) -> str:
    return " ".join(soundness(attack, chain))  # type: ignore[arg-type]


def test_unaware_attacks_are_doubted_against_random_and_masking_purifiers() -> None:
    assert said(AdvDM(), [Gaussian()]) == ""
    assert "Jpeg passes no useful gradient and AdvDM" in said(AdvDM(), [Gaussian(), Jpeg()])
    both = said(AdvDM(), [Dice()])
    assert "Dice is random and AdvDM does not average" in both
    assert "Dice passes no useful gradient" in both


def test_controls_and_undefended_images_are_not_doubted() -> None:
    assert soundness(NoAttack(), [Dice()]) == []
    assert soundness(RandomNoise(), [Dice()]) == []
    assert soundness(AdvDM(), []) == []
    assert soundness(AdvDM(), [Oracle()]) == []


def test_adaptive_attacks_are_doubted_where_they_look_away() -> None:
    assert soundness(Adaptive(purifiers=[Jpeg()]), [Jpeg()]) == []
    assert "made for the purifiers (none) and meets (Jpeg)" in said(Adaptive(), [Jpeg()])
    other = said(Adaptive(purifiers=[Jpeg(30)]), [Jpeg(75)])
    assert "other settings" in other
    assert "one draw in each of 6 steps" in said(Adaptive(steps=6, purifiers=[Dice()]), [Dice()])
    assert soundness(Adaptive(steps=6, samples=8, purifiers=[Dice()]), [Dice()]) == []
    assert "never sees" in said(Adaptive(identity=1.0, purifiers=[Jpeg()]), [Jpeg()])


class Found(Purifier):
    """Has a part without equality and a network loaded at first use, as learned purifiers do."""

    class Part:
        pass

    def __init__(self, part: Part) -> None:
        self.part = part

    @cached_property
    def network(self) -> torch.nn.Module:
        return torch.nn.Identity()

    def run(self, images: Tensor, backbone: object, prompts: object, generator: object) -> Tensor:
        return self.network(images)


def test_equal_settings_are_equal_once_a_network_is_loaded() -> None:
    expected, met = Found(Found.Part()), Found(Found.Part())
    assert soundness(Adaptive(purifiers=[expected]), [met]) == []
    assert met.network is not None
    assert soundness(Adaptive(purifiers=[expected]), [met]) == []


def test_adaptive_attacks_are_doubted_where_they_do_not_know_the_noise_words() -> None:
    trained = Decoupling(training=True, noise="xx noise")
    assert soundness(AdvDM(), [], trained) == []
    assert soundness(RandomNoise(), [], trained) == []
    assert soundness(Adaptive(), [], Decoupling(sampling=True, negative=True)) == []
    assert soundness(Adaptive(decoupling=trained), [], trained) == []
    assert soundness(Adaptive(decoupling=trained), [Oracle()]) == []
    [doubt] = soundness(Adaptive(purifiers=[Jpeg()]), [Jpeg()], trained)
    assert doubt.startswith("It was made for the noise words (none) and the run trains with (xx n")
    [doubt] = soundness(Adaptive(decoupling=trained), [])
    assert "words (xx noise) and the run trains with (none)" in doubt
    [doubt] = soundness(Adaptive(decoupling=Decoupling(training=True)), [], trained)
    assert "words (bhj noisy pattern) and the run trains with (xx noise)" in doubt


def test_adaptive_attacks_are_doubted_where_they_miscall_purified_pictures() -> None:
    aware, unaware = (Adaptive(purifiers=[Jpeg()], decoupling=each) for each in (UNCLEANED, NOISY))
    assert soundness(aware, [Jpeg()], UNCLEANED) == []
    assert soundness(Adaptive(decoupling=NOISY), [], UNCLEANED) == []  # nothing is purified
    [doubt] = soundness(unaware, [Jpeg()], UNCLEANED)
    assert doubt == (
        "It was made for the noise words (xx noise) with purified pictures and the run trains "
        "with (none); set data.attack.decoupling as data.decoupling."
    )
    [doubt] = soundness(aware, [Jpeg()], NOISY)
    assert "(none) with purified pictures and the run trains with (xx noise)" in doubt
    assert len(soundness(aware, [Jpeg()], Decoupling())) == 1


def test_cached_pictures_are_made_again_where_others_come_out_and_nowhere_else() -> None:
    chain = [Jpeg()]
    assert Adaptive(purifiers=chain, decoupling=UNCLEANED).version
    assert not any(Adaptive(purifiers=chain, decoupling=d).version for d in (Decoupling(), NOISY))
    assert len(describe(Adaptive(purifiers=chain, decoupling=NOISY))) == 2  # a key of before


def test_without_purifiers_no_draw_is_called_purified(noise_model: Backbone) -> None:
    with pytest.warns(UserWarning, match="too few"):
        one, other = (
            ours(Adaptive(5, steps=1, identity=0, decoupling=each), noise_model, photos())
            for each in (NOISY, UNCLEANED)
        )
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("losses", "doubt"),
    [
        ([1.0] * 40, ""),
        ([1.0 + 0.1 * (-1) ** i for i in range(40)], ""),
        ([float(i) for i in range(40)], "still moved in the last quarter of 40 steps"),
        ([1.0] * 6, "6 steps are too few"),
    ],
)
def test_convergence(losses: list[float], doubt: str) -> None:
    found = " ".join(convergence(losses))
    assert doubt in found
    assert bool(found) is bool(doubt)


def flat(x: Tensor) -> Tensor:
    return (x.round() * 0).sum()


def sloped(x: Tensor) -> Tensor:
    return x.sum()


@pytest.mark.parametrize(("loss", "warned"), [(flat, True), (sloped, False)])
def test_zero_gradients_are_reported(
    loss: Callable[[Tensor], Tensor], warned: bool, recwarn: pytest.WarningsRecorder
) -> None:
    sign_pgd(
        photos(),
        loss,
        epsilon=4,
        step_sizes=[1.0] * 3,
        ascending=True,
        generator=torch.Generator(),
        title="Blind",
    )
    messages = [str(each.message) for each in recwarn]
    assert warned is any("Blind: the gradient was zero in 3 of 3 steps" in m for m in messages)


def test_the_bar_shows_and_keeps_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    with Watch("Seen", 2) as watch:
        watch.see(torch.tensor(0.25), torch.ones(1))
        watch.see(torch.tensor(0.5), torch.ones(1))
        watch.bar.refresh()
    assert watch.losses == [0.25, 0.5]
    shown = capsys.readouterr().err
    assert "Seen" in shown
    assert "loss=0.5" in shown
