"""PhotoGuard's diffusion attack (arXiv 2302.06588): spoil what an editor would make of an image."""

import torch
from torch import Tensor

from shortcut_lightning.attacks import pictures
from shortcut_lightning.attacks.gradient import GradientAttack
from shortcut_lightning.attacks.img2img import edit, guided
from shortcut_lightning.attacks.pgd import Watch, gradient, sign_step
from shortcut_lightning.attacks.progress import Kept
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.ranges import Budget, Count, NotNegative, SamplingSteps, SomeShare, StepSize


class PhotoGuardDiffusion(GradientAttack):
    """Differentiates through a short editing run and leads its result to `target` or to grey, the
    middle of the range. Each step uses the mean gradient of several runs with other noise.

    The published notebook edits with an inpainting model; any text-to-image model can be attacked
    here, so the edit is image-to-image. It shows the notebook's variant for an L-infinity ball.

    Takes what `GradientAttack` takes, and:

    Args:
        epsilon: Budget in /255; published as 12.75 (0.1 of images in [-1, 1]).
        step_size: Size of a step in /255; published as 0.765.
        repeats: Editing runs averaged in a step.
        strength: Share of the noise schedule the edit starts at.
        num_inference_steps: Denoising steps of the edit; memory grows with them.
        guidance_scale: Classifier-free guidance of the edit.
        edit_prompt: What the editor asks for; empty for the image's own caption.
        target: Image file to lead to; empty for grey.
    """

    def __init__(
        self,
        epsilon: Budget = 11.0,
        step_size: StepSize = 0.765,
        steps: Count = 200,
        repeats: Count = 10,
        strength: SomeShare = 0.7,
        num_inference_steps: SamplingSteps = 4,
        guidance_scale: NotNegative = 7.5,
        edit_prompt: str = "",
        target: str = "",
        surrogate: str = "",
        bf16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(epsilon, step_size, steps, surrogate, bf16, gradient_checkpointing)
        pictures.check(target)
        self.repeats = repeats
        self.strength = strength
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale
        self.edit_prompt = edit_prompt
        self.target = target

    def perturb(
        self, images: Tensor, model: Backbone, prompts: list[str], generator: torch.Generator
    ) -> Tensor:
        """See `GradientAttack`."""
        conditioning = guided(model, [self.edit_prompt or prompt for prompt in prompts])
        goal = torch.full_like(images[:1], 0.5)
        if self.target:
            goal = pictures.read(self.target, images)

        def distance(changed: Tensor) -> Tensor:
            posterior = model.encode(changed)
            first, second = (
                torch.randn(posterior.mean.shape, generator=generator).to(changed.device)
                for _ in range(2)
            )
            edited = edit(
                model,
                posterior.sample(first),
                conditioning,
                second,
                strength=self.strength,
                steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
            )
            return (model.decode(edited) - goal).flatten(1).norm(dim=1).mean()

        at = Kept(images)
        with Watch("PhotoGuard (diffusion)", self.steps) as watch:
            for _ in self.progress.loop(self.steps, generator, at, watch):
                runs = [gradient(at.value, distance) for _ in range(self.repeats)]
                slope = torch.stack([run[0] for run in runs]).mean(dim=0)
                watch.see(torch.stack([run[1] for run in runs]).mean(), slope)
                at.value = sign_step(
                    at.value,
                    images,
                    slope,
                    epsilon=self.epsilon,
                    size=self.step_size,
                    ascending=False,
                )
        return at.value
