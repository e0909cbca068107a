"""APDM (arXiv 2511.01307): the publisher of a model makes it refuse one subject.

The model itself is changed so that DreamBooth on the subject's pictures does not succeed: over and
over a copy begins that training, and the model takes the gradients that would have made the copy
forget the subject at each of its steps.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import functional

from shortcut_lightning import draws
from shortcut_lightning.backbones import Backbone
from shortcut_lightning.batch import TrainBatch
from shortcut_lightning.freezing import copy_sharing
from shortcut_lightning.modules.dreambooth import DreamBooth
from shortcut_lightning.ranges import Count, Positive


class AntiPersonalization(DreamBooth):
    """Every optimiser step has `inner_steps` batches. Each first trains the copy by one step of
    DreamBooth with prior preservation, then adds to the model's gradients those, at the copy, of

        -log sigmoid(-beta D) + prior_loss_weight * (prior loss)
        D = (|e - e_copy(x_c)|^2 - |e - e_ref(x_c)|^2) - (|e - e_copy(x_s)|^2 - |e - e_ref(x_s)|^2)

    for pictures of the subject x_s and of the class x_c, paired as they stand in the batch, under
    the subject's prompt with the same noise and timestep, e_ref being the model before. So the copy
    is led to keep the class under this prompt and to lose the subject.

    Errors are means over a picture's latent; the published code takes the logistic of each of its
    elements by itself, and adds the copy's DreamBooth gradients to the model's, because they are
    not cleared in between. `elementwise` and `leak` do as it does. The pairs are those of the
    stream of pictures, not fixed ones. To judge: train on what is exported, on this subject and on
    another, and sample it as it is.

    Args:
        inner_steps: Steps of the copy, and so batches, in each step of the model.
        inner_learning_rate: AdamW's, of the copy.
        beta: Of the logistic.
        elementwise: Take the logistic of each element, not of a picture.
        leak: Add the gradients of the copy's own training too.
        learning_rate: Of the model's denoiser, the only part that learns.
        **dreambooth: What `DreamBooth` takes; the method is `full`.
    """

    def __init__(
        self,
        inner_steps: Count = 20,
        inner_learning_rate: Positive = 5e-6,
        beta: Positive = 1.0,
        elementwise: bool = False,
        leak: bool = False,
        learning_rate: Positive = 5e-6,
        **dreambooth: Any,
    ) -> None:
        other = [key for key in ("train_text_encoder", "new_tokens") if dreambooth.get(key)]
        if dreambooth.get("method", "full") != "full" or other:
            raise ValueError(
                "AntiPersonalization trains the whole denoiser and nothing else: set model.method "
                "to 'full' and leave model.train_text_encoder and model.new_tokens out."
            )
        super().__init__(learning_rate=learning_rate, **dreambooth)
        self.automatic_optimization = False
        # In lists, so that they are no submodules: the copy with its optimiser, and the reference.
        self._copy: list[tuple[Backbone, torch.optim.Optimizer]] = []
        self._reference: list[Backbone] = []
        self._inner = 0  # steps that the copy has made
        self._resumed: dict[str, Any] = {}

    def configure_callbacks(self) -> list[Callback]:
        """None. It is asked first of all, before Lightning's own checks: raises ValueError for
        settings of a trainer under which the loops cannot go as they are meant to."""
        trainer = self.trainer
        refused = {
            "devices": (trainer.world_size > 1, "1; the copy lives on one"),
            "precision": (
                trainer.precision == "16-mixed",
                "'bf16-mixed' or '32-true'; the copy's gradients are not scaled",
            ),
            "gradient_clip_val": (
                bool(trainer.gradient_clip_val),
                "null; gradients are added up over the copy's steps and not clipped, as published",
            ),
            "accumulate_grad_batches": (
                trainer.accumulate_grad_batches != 1,
                "1; model.inner_steps says over how many batches gradients are added up",
            ),
        }
        for setting, (wrong, wanted) in refused.items():
            if wrong and trainer.state.fn == TrainerFn.FITTING:
                raise ValueError(f"AntiPersonalization: set trainer.{setting} to {wanted}.")
        return []

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        count = int(batch.is_prior.sum())
        if 2 * count != len(batch.prompts):
            raise ValueError(
                "AntiPersonalization pairs each picture of the subject with one of its class: set "
                "data.with_prior_preservation to true."
            )
        victim, inner = self._victim()
        with self._as(victim):
            learnt = self(batch)["loss"]
        learnt.backward()
        inner.step()
        if not self.hparams["leak"]:
            inner.zero_grad()
        losses = self.protection(victim, batch)
        losses["loss"].backward()
        self._take(victim)
        inner.zero_grad()
        self._inner += 1
        if self._inner == self.hparams["inner_steps"]:
            self._step()
        shown = {f"train/{name}": value.detach() for name, value in losses.items()}
        self.log_dict(
            {**shown, "train/loss_copy": learnt.detach()},
            prog_bar=True,
            batch_size=len(batch.prompts),
        )
        return losses["loss"].detach()

    def protection(self, victim: Backbone, batch: TrainBatch) -> dict[str, Tensor]:
        """The losses above, at the copy; gradients flow to its denoiser. Noise and timesteps are
        new, those of a pair from the number of its subject's picture."""
        subject, kind = ~batch.is_prior, batch.is_prior
        numbers, latents = batch.draws[subject], self.encode(batch)
        noise = draws.normal(latents.shape[1:], self.seed, "protection noise", numbers)
        timesteps = torch.cat(
            [
                self.backbone.draw_timesteps(1, draws.generator(self.seed, "protection step", n))
                for n in numbers.tolist()
            ]
        ).to(numbers.device)
        said = [prompt for prompt, own in zip(batch.prompts, subject.tolist(), strict=True) if own]
        asked = self.embed(said)

        def errors(model: Backbone, clean: Tensor) -> Tensor:
            noisy = model.add_noise(clean, noise, timesteps)
            target = model.target(clean, noise, timesteps)
            found = (model.predict(noisy, timesteps, asked) - target).square()
            return found if self.hparams["elementwise"] else found.mean(dim=(1, 2, 3))

        with torch.no_grad():
            before = [errors(self.reference(), latents[rows]) for rows in (kind, subject)]
        now = [errors(victim, latents[rows]) for rows in (kind, subject)]
        apart = (now[0] - before[0]) - (now[1] - before[1])
        forgotten = -functional.logsigmoid(-self.hparams["beta"] * apart).mean()
        class_words = [p for p, own in zip(batch.prompts, kind.tolist(), strict=True) if own]
        clean = latents[kind]
        noisy = victim.add_noise(clean, noise, timesteps)
        found = victim.predict(noisy, timesteps, self.embed(class_words))
        prior = functional.mse_loss(found, victim.target(clean, noise, timesteps))
        return {
            "loss": forgotten + self.hparams["prior_loss_weight"] * prior,
            "loss_protection": forgotten,
            "loss_prior": prior,
            "margin": -apart.mean(),
        }

    def reference(self) -> Backbone:
        """The model as it was before, loaded when first asked for."""
        if not self._reference:
            self._reference.append(self._load().requires_grad_(False).eval().to(self.device))
        return self._reference[0]

    def _victim(self) -> tuple[Backbone, torch.optim.Optimizer]:
        if not self._copy:
            victim = copy_sharing(self.backbone, list(self.backbone.denoiser.parameters()))
            inner = torch.optim.AdamW(
                victim.denoiser.parameters(), lr=self.hparams["inner_learning_rate"]
            )
            inner.zero_grad()  # the model's gradients so far were copied with its weights
            self._copy.append((victim, inner))
            if self._resumed:
                victim.denoiser.load_state_dict(self._resumed["weights"])
                inner.load_state_dict(self._resumed["optimizer"])
                for own, kept in zip(self._learners, self._resumed["gradients"], strict=True):
                    own.grad = None if kept is None else kept.to(own)
                self._resumed = {}
        return self._copy[0]

    def _take(self, victim: Backbone) -> None:
        """Adds the copy's gradients to the model's."""
        for own, its in zip(self._learners, victim.denoiser.parameters(), strict=True):
            if its.grad is not None:
                own.grad = its.grad.clone() if own.grad is None else own.grad.add_(its.grad)

    def _step(self) -> None:
        optimizer: Any = self.optimizers()
        optimizer.step()
        optimizer.zero_grad()
        schedule: Any = self.lr_schedulers()
        if schedule is not None:
            schedule.step()
        self._copy.clear()
        self._inner = 0

    @property
    def _learners(self) -> list[torch.nn.Parameter]:
        return list(self.backbone.denoiser.parameters())

    @contextmanager
    def _as(self, model: Backbone) -> Iterator[None]:
        """`forward` with another model than the one that is protected."""
        own = self.backbone
        self.backbone = model
        try:
            yield
        finally:
            self.backbone = own

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self._copy:  # in the middle of the copy's steps
            victim, inner = self._copy[0]
            checkpoint["copy"] = {
                "steps": self._inner,
                "weights": victim.denoiser.state_dict(),
                "optimizer": copy.deepcopy(inner.state_dict()),
                "gradients": [own.grad for own in self._learners],
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._resumed = checkpoint.get("copy", {})
        self._inner = self._resumed.get("steps", 0)

    def on_fit_end(self) -> None:
        self._copy.clear()
        self._reference.clear()
