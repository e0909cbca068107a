"""Projected steps along the sign of the gradient (PGD, arXiv 1706.06083), shared by attacks.

Sizes and budgets are in /255. Because only the sign is used, images of a batch do not influence one
another through a loss that is a mean over them.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from shortcut_lightning.attacks.base import SoundnessWarning
from shortcut_lightning.attacks.progress import Kept, Progress
from shortcut_lightning.finite import NotFinite


def project(changed: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """Into the L-infinity ball of `epsilon` /255 around `clean`, then into [0, 1]."""
    radius = epsilon / 255
    return (clean + (changed - clean).clamp(-radius, radius)).clamp(0, 1)


def random_start(clean: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """A uniform point of the ball; `generator` lives on the CPU, whatever the images' device."""
    noise = torch.rand(clean.shape, generator=generator).to(clean.device)
    return project(clean + (2 * noise - 1) * epsilon / 255, clean, epsilon)


def gradient(images: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The gradient of `loss` at the images and its value, both detached."""
    images = images.detach().requires_grad_()
    value = loss(images)
    (slope,) = torch.autograd.grad(value, images)
    return slope, value.detach()


def sign_step(
    images: Tensor, clean: Tensor, slope: Tensor, *, epsilon: float, size: float, ascending: bool
) -> Tensor:
    """One step of `size` /255 up or down a gradient, back into the ball around `clean`."""
    moved = images.detach() + (1 if ascending else -1) * size / 255 * slope.sign()
    return project(moved, clean, epsilon)


class Watch:
    """A progress bar that shows the loss, remembers it, and says when gradients were zero.

    Attributes:
        losses: The loss at every step.
    """

    def __init__(self, title: str, total: int) -> None:
        self.title = title
        self.bar = tqdm(total=total, desc=title, unit="step", mininterval=0.5)
        self.losses: list[float] = []
        self.flat = 0

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        if self.flat:
            warnings.warn(
                f"{self.title}: the gradient was zero in {self.flat} of {len(self.losses)} steps. "
                "Something between the pixels and the loss hides it; do not call what survives "
                "this attack robust.",
                SoundnessWarning,
                stacklevel=2,
            )

    def see(self, value: Tensor, slope: Tensor) -> None:
        """Counts one step."""
        self.losses.append(value.item())
        if not math.isfinite(self.losses[-1]):
            raise NotFinite(
                f"{self.title}, step {len(self.losses)}: the loss is {self.losses[-1]}; try "
                "smaller steps or learning rates of data.attack, or bf16 false."
            )
        self.flat += not slope.any().item()
        self.bar.set_postfix(loss=f"{self.losses[-1]:.4g}", refresh=False)
        self.bar.update()

    def state_dict(self) -> dict[str, Any]:
        """See `progress.Stateful`."""
        return {"losses": list(self.losses), "flat": self.flat}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `progress.Stateful`."""
        self.losses, self.flat = state_dict["losses"], state_dict["flat"]
        self.bar.update(len(self.losses) - self.bar.n)


def sign_pgd(
    clean: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    epsilon: float,
    step_sizes: Sequence[float],
    ascending: bool,
    generator: torch.Generator,
    start: Tensor | None = None,
    title: str = "PGD",
    watch: Watch | None = None,
    progress: Progress = Progress(),  # noqa: B008
) -> Tensor:
    """One step for each of `step_sizes`, up or down `loss`, which takes the images, (N, 3, H, W) in
    [0, 1], to a scalar and draws from `generator`. Starts at `start`, else at `clean`. `watch` is
    one that is already open, for attacks that call this many times; `progress` is for those that
    call it once."""
    if watch is None:
        with Watch(title, len(step_sizes)) as opened:
            return sign_pgd(
                clean,
                loss,
                epsilon=epsilon,
                step_sizes=step_sizes,
                ascending=ascending,
                generator=generator,
                start=start,
                watch=opened,
                progress=progress,
            )
    at = Kept(clean if start is None else start)
    for number in progress.loop(len(step_sizes), generator, at, watch):
        slope, value = gradient(at.value, loss)
        size = step_sizes[number]
        at.value = sign_step(
            at.value, clean, slope, epsilon=epsilon, size=size, ascending=ascending
        )
        watch.see(value, slope)
    return at.value.detach()
