"""AntiPure (arXiv 2509.13922): against the purifier instead of the model that learns.

There is no public code. What is here follows others' accounts of the paper: where they leave room,
the reading is ours and said so.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shortcut_lightning.attacks.gradient import GradientAttack
from shortcut_lightning.attacks.pgd import random_start, sign_pgd
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.diffusion import Space, space_of, timestep_of
from shortcut_lightning.purifiers.gridpure import GridPure
from shortcut_lightning.purifiers.optimal_step import OptimalStep, optimal_timestep
from shortcut_lightning.purifiers.windows import windows
from shortcut_lightning.ranges import Budget, Count, NotNegative, StepSize

Objective = Callable[[Tensor], Tensor]

PATCH = 8  # side of a patch of the cosine transform, as JPEG's


class AntiPure(GradientAttack):
    """Climbs, against a purifier that draws pictures anew by diffusion, at a timestep t that it
    walks through and another one t':

        |e - e(x_t, t)|^2 + frequency_weight * H(x_0) - timestep_weight * |e(x_t, t') - e(x_t, t)|^2

    with H the mean energy of the lower right quarter of the cosine transform of patches, x_0 the
    clean picture that the purifier's model predicts. The last term makes the model take a noise
    level for another. Against any other purifier P that has a gradient, an extension of ours, it
    climbs |P(x) - x_clean|^2 + frequency_weight * H(P(x)). Several purifiers are added up.

    Our reading: t is drawn evenly among the timesteps of the walk and t' from all of them; means,
    not sums; pictures larger than a pixel model's are seen through one window of its size a step.

    Takes what `GradientAttack` takes, and:

    Args:
        epsilon: Budget in /255; published as 16.
        step_size: Size of a step in /255; not known.
        steps: Number of steps; not known.
        purifiers: What is attacked. Each must be differentiable; Adaptive also knows others.
        frequency_weight: See above.
        timestep_weight: See above.
        surrogate: The model whose latents a purifier works in: `pocket`, a diffusers folder or a
            hub id; empty for the one that is going to be trained.
    """

    version = 2  # raise whenever other pixels come out for the same arguments

    def __init__(
        self,
        epsilon: Budget = 11.0,
        step_size: StepSize = 1.0,
        steps: Count = 100,
        purifiers: Sequence[Purifier] = (GridPure(),),
        frequency_weight: NotNegative = 0.5,
        timestep_weight: NotNegative = 0.5,
        surrogate: str = "",
        bf16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(epsilon, step_size, steps, surrogate, bf16, gradient_checkpointing)
        if not purifiers:
            raise ValueError("data.attack.purifiers is empty; name what is to be attacked.")
        for each in purifiers:
            if not each.differentiable:
                raise ValueError(
                    f"data.attack.purifiers: {type(each).__name__} has no useful gradient, which "
                    "AntiPure needs; use Adaptive, or a purifier that has one."
                )
        self.purifiers = purifiers
        self.frequency_weight = frequency_weight
        self.timestep_weight = timestep_weight

    def perturb(
        self, images: Tensor, model: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `GradientAttack`."""
        objectives = [
            self._objective(each, images, model, prompts, generator) for each in self.purifiers
        ]
        return sign_pgd(
            images,
            lambda changed: torch.stack([each(changed) for each in objectives]).sum(),
            epsilon=self.epsilon,
            step_sizes=[self.step_size] * self.steps,
            ascending=True,
            start=random_start(images, self.epsilon, generator),  # at the picture itself P is flat
            generator=generator,
            title="AntiPure",
            progress=self.progress,
        )

    def _objective(
        self,
        purifier: Purifier,
        images: Tensor,
        model: Backbone,
        prompts: list[str],
        generator: torch.Generator,
    ) -> Objective:
        by_diffusion = hasattr(purifier, "pixel_model") and not getattr(purifier, "backbone", "")
        if not by_diffusion:

            def cleaned(changed: Tensor) -> Tensor:
                made = purifier.run(changed, model, prompts, generator)
                return (made - images).square().mean() + self.frequency_weight * high_energy(made)

            return cleaned
        with torch.no_grad():
            space = space_of(
                purifier.pixel_model,  # type: ignore[attr-defined]
                images,
                model,
                prompts,
                getattr(purifier, "prompt", ""),
                getattr(purifier, "guidance_scale", 1.0),
                getattr(purifier, "negative_prompt", ""),
            )
        last = _last(purifier, space)
        places = list(windows(images.shape[-2], images.shape[-1], space.side or max(images.shape)))

        def denoised(changed: Tensor) -> Tensor:
            place = places[int(torch.randint(len(places), (), generator=generator))]
            return self._against(space, changed[place], last, generator)

        return denoised

    def _against(
        self, space: Space, images: Tensor, last: int, generator: torch.Generator
    ) -> Tensor:
        right = int(torch.randint(last + 1, (), generator=generator))
        wrong = int(torch.randint(len(space.path.published), (), generator=generator))
        data = space.enter(images)
        noise = torch.randn(data.shape, generator=generator).to(data)
        a, b = (level.sqrt() for level in space.powers(right, data))
        noisy = a * data + b * noise
        found = space.noise(noisy, right)
        value = (noise - found).square().mean()
        if self.frequency_weight:
            clean = space.leave((noisy - b * found) / a)
            value = value + self.frequency_weight * high_energy(clean)
        if self.timestep_weight:
            mistaken = (space.noise(noisy, wrong) - found).square().mean()
            value = value - self.timestep_weight * mistaken
        return value


def _last(purifier: Purifier, space: Space) -> int:
    """The timestep at which a purifier's walk begins."""
    if isinstance(purifier, OptimalStep):
        return optimal_timestep(space.path.published, 2 * purifier.epsilon / 255)
    return timestep_of(purifier.strength, space)  # type: ignore[attr-defined]


def high_energy(images: Tensor) -> Tensor:
    """Mean square of the coefficients in the lower right quarter of the orthonormal cosine
    transform (DCT-II) of each patch of 8 x 8; (N, 3, H, W), what does not fill a patch left out."""
    rows, columns = (side // PATCH * PATCH for side in images.shape[-2:])
    patches = images[..., :rows, :columns].unfold(-2, PATCH, PATCH).unfold(-2, PATCH, PATCH)
    place = torch.arange(PATCH, device=images.device).float()
    basis = torch.cos(torch.pi / PATCH * (place + 0.5) * place[:, None]) * (2 / PATCH) ** 0.5
    basis[0] /= 2**0.5
    made = basis @ patches @ basis.T
    return made[..., PATCH // 2 :, PATCH // 2 :].square().mean()
