"""BlurGuard (arXiv 2511.00143): any attack, its perturbation blurred until its spectrum follows the
picture's, so that what takes noise away does not find it."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import torch
from torch import Tensor, nn

from shortcut_lightning.attacks.advdm import AdvDM
from shortcut_lightning.attacks.base import Attack, SoundnessWarning
from shortcut_lightning.attacks.gradient import GradientAttack, load_frozen
from shortcut_lightning.attacks.metacloak import MetaCloak
from shortcut_lightning.attacks.transforms import gaussian_blur
from shortcut_lightning.backbones.base import Backbone, Posterior
from shortcut_lightning.ranges import Between, Budget, CountOrNone, NotNegative, Positive

KERNEL = 33  # taps of the published blur


class BlurGuard(Attack):
    """First a Gaussian's width is learnt for each region of each picture, on noise of the budget's
    size, until noise so blurred changes no radius of the picture's power spectrum by more than
    `tolerance`. Then the attack is made with a model that sees every perturbation through this blur
    and the budget.

    Regions are those of a grid; the published ones are objects that SAM finds, and their radius is
    by mistake measured from the highest frequency. The attack steps as it always does; published
    are steps of the gradient divided by its norm.

    The blur lies before the model's encoder, so that an attack has to show it the pictures
    themselves, or their mirror images.

    Args:
        epsilon: Budget in /255, of the blurred perturbation.
        attack: What is blurred. Its own budget is not used. Refused are those whose loss would be
            of pictures that are not published: with `purifiers`, with named `surrogates`, and
            MetaCloak, which has a blur of its own.
        raw_epsilon: Budget in /255 of the perturbation before it is blurred, which takes most of it
            away; published without one.
        grid: Regions along a side.
        sigma_steps: Steps in which the widths are learnt, from 1 pixel.
        sigma_rate: Adam's rate, of their logarithms.
        tolerance: Of a spectrum's decimal logarithm.

    Raises ValueError for an `attack` that is refused, and for BlurGuard itself.
    """

    version = 1  # raise whenever other pixels come out for the same arguments

    def __init__(
        self,
        epsilon: Budget = 11.0,
        attack: Attack = AdvDM(),  # noqa: B008
        raw_epsilon: Budget = 64.0,
        grid: Annotated[int, Between(1, 16)] = 4,
        sigma_steps: CountOrNone = 50,
        sigma_rate: Positive = 0.06,
        tolerance: NotNegative = 0.0,
    ) -> None:
        super().__init__(epsilon)
        _refuse(attack)
        self.attack = attack
        self.raw_epsilon = raw_epsilon
        self.grid = grid
        self.sigma_steps = sigma_steps
        self.sigma_rate = sigma_rate
        self.tolerance = tolerance
        self.whole_set = attack.whole_set  # type: ignore[misc]

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Attack`."""
        sigmas = self._widths(images, generator)
        inner = copy.copy(self.attack)
        inner.epsilon = self.raw_epsilon
        if isinstance(inner, GradientAttack) and inner.surrogate:
            backbone, inner.surrogate = load_frozen(inner.surrogate, images), ""
        view = View(images, self.raw_epsilon, lambda raw, rows: self._blurred(raw, sigmas[rows]))
        inner.progress = self.progress
        with seen_through(backbone, view):
            raw = inner.run(images.clone(), backbone, prompts, generator).detach()
        if not view.used:
            warnings.warn(
                f"BlurGuard: {type(inner).__name__} shows no model its perturbed pictures as they "
                "are, so it did not know that they are blurred in the end.",
                SoundnessWarning,
                stacklevel=2,
            )
        return images + self._blurred(raw - images, sigmas)

    def _blurred(self, raw: Tensor, sigmas: Tensor) -> Tensor:
        radius = self.epsilon / 255
        return blurred(raw, sigmas, self.grid).clamp(-radius, radius)

    def _widths(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(N, grid^2) standard deviations in pixels."""
        logarithms = nn.ParameterList(
            [nn.Parameter(torch.zeros(len(images), self.grid**2, device=images.device))]
        )
        optimizer = torch.optim.Adam(logarithms.parameters(), lr=self.sigma_rate)
        wanted, radius = spectrum(images), self.epsilon / 255
        for _ in self.progress.loop(self.sigma_steps, generator, logarithms, optimizer):
            noise = torch.randn(images.shape, generator=generator).to(images.device)
            seen = images + self._blurred(noise.clamp(-radius, radius), logarithms[0].exp())
            apart = (spectrum(seen.clamp(0, 1)) - wanted).abs().amax(dim=1)
            optimizer.zero_grad()
            (apart - self.tolerance).relu().sum().backward()  # a sum, so that rows stay apart
            optimizer.step()
        return logarithms[0].detach().exp()


def _refuse(attack: Attack) -> None:
    """Raises ValueError for an attack whose model would see what is not published."""
    given = f"data.attack.attack is {type(attack).__name__}"
    if isinstance(attack, BlurGuard):
        raise ValueError(f"{given} itself; name the attack to blur.")
    if getattr(attack, "purifiers", ()):
        raise ValueError(
            f"{given} with purifiers, which would clean pictures before the blur, and what is "
            "published is blurred before anyone cleans it; take one without, such as AdvDM."
        )
    if named := ", ".join(filter(None, getattr(attack, "surrogates", ()))):
        raise ValueError(
            f"{given} with surrogates of its own ({named}), which would see pictures unblurred; "
            "leave them empty, or take an attack with one data.attack.attack.surrogate, as ASPL."
        )
    if isinstance(attack, MetaCloak):
        raise ValueError(
            f"{given}, whose model sees pictures through its own blur, which would be taken for a "
            "perturbation of them; take an attack that shows them as they are, such as ASPL."
        )


class View:
    """What a model sees of pictures: perturbations of the known ones through `filter`.

    Attributes:
        used: How many perturbed pictures it has been shown.
    """

    def __init__(
        self, clean: Tensor, epsilon: float, filter: Callable[[Tensor, list[int]], Tensor]
    ) -> None:
        """`clean` are (N, 3, H, W); what lies within `epsilon` /255 of one of them, or of its
        mirror image, is taken for it. `filter` maps (B, 3, H, W) perturbations of the given rows.
        """
        self.clean, self.radius, self.filter = clean, (epsilon + 0.5) / 255, filter
        self.used = 0

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the same."""
        if images.shape[1:] != self.clean.shape[1:]:
            return images
        shown = images
        for mirrored in (False, True):
            ours = images.flip(-1) if mirrored else images
            places, rows = self._known(ours.detach())
            if not places:
                continue
            clean = self.clean[rows]
            self.used += int((ours[places] != clean).flatten(1).any(1).sum())
            changed = clean + self.filter(ours[places] - clean, rows)
            shown = shown.index_copy(
                0,
                torch.tensor(places, device=images.device),
                (changed.flip(-1) if mirrored else changed).clamp(0, 1).to(shown),
            )
        return shown

    def _known(self, images: Tensor) -> tuple[list[int], list[int]]:
        """Places of known pictures among `images`, and which of the clean ones they are."""
        apart = torch.stack([(images - each).abs().amax(dim=(1, 2, 3)) for each in self.clean], 1)
        nearest = apart.min(dim=1)
        places = (nearest.values <= self.radius).nonzero().flatten()
        return places.tolist(), nearest.indices[places].tolist()


@contextmanager
def seen_through(model: Backbone, view: View) -> Iterator[None]:
    """The model's encoder, and that of copies made inside, behind a view."""
    encode = model.encode

    def behind(images: Tensor) -> Posterior:
        return encode(view(images))

    model.encode = behind  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.encode


def blurred(perturbation: Tensor, sigmas: Tensor, grid: int) -> Tensor:
    """(N, 3, H, W), each of grid x grid regions blurred with a width of its own, (N, grid^2)
    pixels, row by row; edges mirrored."""
    height, width = perturbation.shape[-2:]
    taps = min(KERNEL, 2 * min(height, width) - 1)
    down = torch.arange(height, device=sigmas.device) * grid // height
    right = torch.arange(width, device=sigmas.device) * grid // width
    region = down[:, None] * grid + right  # (H, W)
    made = torch.zeros_like(perturbation)
    for number in range(grid**2):
        mask = (region == number).to(perturbation)
        if mask.any():
            parts = [
                gaussian_blur(one[None], sigma, taps)
                for one, sigma in zip(perturbation, sigmas[:, number], strict=True)
            ]
            made = made + mask * torch.cat(parts)
    return made


def spectrum(images: Tensor) -> Tensor:
    """(N, R) decimal logarithm of the power at each whole radius from frequency zero."""
    height, width = images.shape[-2:]
    power = torch.fft.fft2(images).abs().square().sum(dim=1)
    y, x = (torch.fft.fftfreq(n, 1 / n, device=images.device) for n in (height, width))
    radius = (y[:, None].square() + x.square()).sqrt().round().long().flatten()
    sums = torch.zeros(len(images), int(radius.max()) + 1, device=images.device)
    sums = sums.index_add(1, radius, power.flatten(1))
    return (sums + 1e-8).log10()
