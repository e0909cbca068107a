"""FreqPure (arXiv 2505.01267): a picture drawn anew by diffusion, held to the low frequencies of
the given one, which a perturbation hardly changes."""

from typing import Annotated, Literal

import torch
from torch import Tensor

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.purifiers.diffusion import Space, regenerated, space_of, timestep_of
from shortcut_lightning.purifiers.resampling import resized
from shortcut_lightning.ranges import Between, CountOrNone, NotNegative, Share, SomeShare, Timestep

PI = 3.141592653589793


class FreqPure(Purifier):
    """At each step of the walk the predicted clean picture takes its amplitudes at low frequencies
    from the given one, and its phases there are cut to within `delta` of it. The given one is first
    denoised from `reference`, with new noise each time.

    The published code replaces the phases before it cuts them, so that its cut does nothing, and
    cuts angles without regard to their wrapping around. `copy_phase` does as it does.

    Args:
        strength: Share of the noise schedule at which the walk begins.
        steps: Denoiser evaluations of the walk; 0 for one at every timestep.
        amplitude_cut: Highest frequency, in cycles a picture, whose amplitude is taken.
        phase_cut: The same of phases.
        delta: How far a phase may be from the given picture's, in radians.
        copy_phase: Take phases instead of cutting them.
        reference: Timestep, of 1000, from which the given picture is denoised.
        eta: 1 walks with noise as DDPM does, 0 without as DDIM does.
        space: What the frequencies are those of, where the model has latents: `pixels` decodes and
            encodes at every step, `latents` does not.
        pixel_model: Folder or hub id of an unconditional diffusers DDPM, as published; empty for
            the run's own model, without a prompt.
    """

    random = True
    differentiable = True

    def __init__(
        self,
        strength: SomeShare = 1.0,
        steps: CountOrNone = 100,
        amplitude_cut: NotNegative = 10.0,
        phase_cut: NotNegative = 10.0,
        delta: Annotated[float, Between(0, PI, note="radians")] = 0.3,
        copy_phase: bool = False,
        reference: Timestep = 50,
        eta: Share = 1.0,
        space: Literal["pixels", "latents"] = "pixels",
        pixel_model: str = "",
    ) -> None:
        if pixel_model and space == "latents":
            raise ValueError(
                f"data.purifiers.space is 'latents', but the model '{pixel_model}' "
                "(data.purifiers.pixel_model) has none; set it to 'pixels'."
            )
        self.strength = strength
        self.steps = steps
        self.amplitude_cut = amplitude_cut
        self.phase_cut = phase_cut
        self.delta = delta
        self.copy_phase = copy_phase
        self.reference = reference
        self.eta = eta
        self.space = space
        self.pixel_model = pixel_model

    def run(
        self, images: Tensor, backbone: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `Purifier`."""
        model = space_of(self.pixel_model, images, backbone, prompts)
        size = (images.shape[-2], images.shape[-1])
        if model.side:
            images = resized(images, (model.side, model.side))
        data = model.enter(images)
        reference = self.reference * len(model.path.published) // 1000

        def held(clean: Tensor) -> Tensor:
            given = denoised(model, data, reference, generator)
            if self.space == "latents":
                return self.exchanged(clean, given)
            made = self.exchanged(*(model.leave(each).clamp(0, 1) for each in (clean, given)))
            return model.enter(made.clamp(0, 1))

        start = timestep_of(self.strength, model)
        made = regenerated(
            model, data, start, generator, self.steps, self.eta, "FreqPure", change=held
        )
        return resized(model.leave(made).clamp(0, 1), size)

    def exchanged(self, made: Tensor, given: Tensor) -> Tensor:
        """Pictures or latents (N, C, H, W): `made` with the low frequencies held to `given`."""
        ours, theirs = torch.fft.fft2(made.float()), torch.fft.fft2(given.float())
        height, width = made.shape[-2:]
        y, x = (torch.fft.fftfreq(n, 1 / n, device=made.device) for n in (height, width))
        radius = (y[:, None].square() + x.square()).sqrt()
        amplitude = torch.where(radius <= self.amplitude_cut, theirs.abs(), ours.abs())
        turn = _angle(ours * theirs.conj_physical())  # in (-pi, pi], however the two angles wrap
        allowed = 0.0 if self.copy_phase else self.delta
        cut = torch.where(radius <= self.phase_cut, turn.clamp(-allowed, allowed), turn)
        phase = _unit(theirs) * torch.polar(torch.ones_like(cut), cut)
        return torch.fft.ifft2(amplitude * phase).real.to(made)


def denoised(space: Space, data: Tensor, timestep: int, generator: torch.Generator) -> Tensor:
    """Clean data, noised to a timestep and predicted from there in one step."""
    a, b = (level.sqrt() for level in space.powers(timestep, data))
    noise = torch.randn(data.shape, generator=generator).to(data)
    noisy = a * data + b * noise
    return (noisy - b * space.noise(noisy, timestep)) / a


def _angle(numbers: Tensor) -> Tensor:
    """As torch's, with a gradient at zero."""
    return torch.where(numbers.abs() > 1e-12, numbers, torch.ones_like(numbers)).angle()


def _unit(numbers: Tensor) -> Tensor:
    tiny = numbers.abs() <= 1e-12
    safe = torch.where(tiny, torch.ones_like(numbers), numbers)
    return safe / safe.abs()
