"""SimAC (arXiv 2312.07865): ASPL at timesteps that matter, with features torn from clean ones."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import torch
from torch import Tensor

from shortcut_lightning.attacks.aspl import ASPL
from shortcut_lightning.attacks.denoising import denoise_latents, eps_loss
from shortcut_lightning.attacks.pgd import gradient, sign_step
from shortcut_lightning.attacks.progress import Kept
from shortcut_lightning.attacks.surrogate import Surrogate, SurrogateTraining
from shortcut_lightning.backbones.base import Backbone, Conditioning
from shortcut_lightning.ranges import Between, Budget, Count, CountOrNone, NotNegative, StepSize

CANDIDATES = 5  # timesteps tried in each iteration of the search


class SimAC(ASPL):
    """ASPL whose timesteps come, for each image, from a set found once on the pretrained model:
    those at which the loss moves the image least are struck out again and again. To the loss is
    added how far the denoiser's last features are from those of the clean image.

    Takes what `ASPL` takes, and:

    Args:
        search_steps: Most iterations of the search for timesteps.
        window: Timesteps struck out on either side of a poor one, of a schedule of 1000.
        feature_weight: Weight of the feature loss. The published code adds it as a number without a
            gradient, which is what 0 does.
    """

    def __init__(
        self,
        epsilon: Budget = 11.0,
        step_size: StepSize = 0.6375,
        rounds: Count = 50,
        surrogate_steps: CountOrNone = 3,
        steps: Count = 6,
        search_steps: CountOrNone = 50,
        window: Annotated[int, Between(0, 999)] = 20,
        feature_weight: NotNegative = 1.0,
        surrogate: str = "",
        training: SurrogateTraining = SurrogateTraining(),  # noqa: B008
        bf16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            epsilon,
            step_size,
            rounds,
            surrogate_steps,
            steps,
            surrogate=surrogate,
            training=training,
            bf16=bf16,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.search_steps = search_steps
        self.window = window
        self.feature_weight = feature_weight

    def perturb(
        self, images: Tensor, model: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `GradientAttack`."""
        with torch.no_grad():
            conditioning = model.embed(prompts)

        def slope(changed: Tensor, timesteps: Tensor) -> Tensor:
            return gradient(
                changed, lambda x: eps_loss(model, x, conditioning, generator, timesteps)
            )[0]

        kept = self.timesteps(images, slope, model.num_train_timesteps, generator)

        with torch.no_grad():
            clean = model.encode(images)  # the encoder does not learn

        def loss(victim: Backbone, changed: Tensor, conditioning: Conditioning) -> Tensor:
            timesteps = torch.stack([pick(each, 1, generator)[0] for each in kept])
            if self.feature_weight == 0:
                return eps_loss(victim, changed, conditioning, generator, timesteps)
            draw = torch.randn(clean.mean.shape, generator=generator).to(images.device)
            latents = victim.encode(changed).sample(draw)
            with last_features(victim) as features:
                made = denoise_latents(victim, latents, conditioning, generator, timesteps)
            with torch.no_grad(), last_features(victim) as wanted:
                noisy = victim.add_noise(clean.sample(draw), made.noise, made.timesteps)
                victim.predict(noisy, made.timesteps, conditioning)
            return made.losses.mean() + self.feature_weight * apart(features, wanted)

        surrogate = Surrogate(model, self.training, prompts, images, generator, self.progress)
        return self.alternate(images, [surrogate], loss, generator, title="SimAC")

    def timesteps(
        self,
        images: Tensor,
        slope: Callable[[Tensor, Tensor], Tensor],
        total: int,
        generator: torch.Generator,
    ) -> list[Tensor]:
        """One set of timesteps per image, each 1-D int64.

        `slope` is the gradient of the loss at (images, timesteps). Each iteration tries five
        timesteps of an image's set, strikes out those around the one with the smallest gradient and
        takes a step at the one with the largest, until a tenth of the schedule is left or after
        `search_steps` iterations. All images are searched together.
        """
        width = self.window * total // 1000
        found, at = Kept([torch.arange(total) for _ in images]), Kept(images)
        for _ in self.progress.loop(self.search_steps, generator, found, at):
            kept, changed = found.value, at.value
            if all(len(each) <= total // 10 for each in kept):
                break
            tried = torch.stack([pick(each, CANDIDATES, generator) for each in kept])
            slopes = [slope(changed, tried[:, column]) for column in range(CANDIDATES)]
            sizes = torch.stack([each.abs().sum(dim=(1, 2, 3)) for each in slopes], dim=1)
            worst, best = sizes.argmin(dim=1).tolist(), sizes.argmax(dim=1).tolist()
            chosen = torch.stack([slopes[column][row] for row, column in enumerate(best)])
            for row, column in enumerate(worst):
                if len(kept[row]) > total // 10:
                    middle = int(tried[row, column].clamp(width, total - width))
                    near = (kept[row] >= middle - width) & (kept[row] < middle + width)
                    if not near.all():  # a wide window may hold all that is left
                        kept[row] = kept[row][~near]
            at.value = sign_step(
                changed, images, chosen, epsilon=self.epsilon, size=self.step_size, ascending=True
            )
        return found.value


def apart(features: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Mean over layers of the mean squared distance."""
    return torch.stack(
        [
            (here.float() - there.float()).square().mean()
            for here, there in zip(features, wanted, strict=True)
        ]
    ).mean()


def pick(values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` different ones of (K,) values, or with repeats where there are fewer."""
    if len(values) < count:
        return values[torch.randint(len(values), (count,), generator=generator)]
    return values[torch.randperm(len(values), generator=generator)[:count]]


@contextmanager
def last_features(model: Backbone) -> Iterator[list[Tensor]]:
    """Outputs of the residual blocks in the denoiser's last up block, of the calls inside."""
    blocks = getattr(model.denoiser, "up_blocks", None)
    if blocks is None:
        raise ValueError(
            "SimAC's feature loss needs a UNet denoiser; set data.attack.feature_weight to 0."
        )
    found: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _module, _given, out: found.append(out))
        for block in blocks[-1].resnets
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
