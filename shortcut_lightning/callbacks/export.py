"""Writes the result of a fit in the files that other programs load."""

import logging
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from shortcut_lightning.backbones import Backbone
from shortcut_lightning.backbones.base import is_adapter
from shortcut_lightning.callbacks.trainers import run_folder
from shortcut_lightning.files.atomic import atomic_folder
from shortcut_lightning.files.cache import together
from shortcut_lightning.finite import NotFinite, all_finite

log = logging.getLogger(__name__)


class Export(Callback):
    """At the end of `fit`, fills `export/` in the run folder.

    A LoRA run gives `pytorch_lora_weights.safetensors` (diffusers) and, on Stable Diffusion 1.x to
    XL and FLUX.1, `kohya_lora.safetensors` (A1111, ComfyUI), one of LoHa or LoKr the second alone,
    in LyCORIS' keys; learned words give `tokens/<word>.safetensors` (textual inversion).

    Args:
        pipeline: Also write `model/`, a plain diffusers folder with everything merged.
    """

    def __init__(self, pipeline: bool = True) -> None:
        self.pipeline = pipeline

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses before training what could not be written after it."""
        if self.pipeline and isinstance(pl_module.backbone, Backbone):
            pl_module.backbone.check_savable()

    # After every callback's `on_train_end`, where averaged weights take their place.
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run or trainer.interrupted:  # type: ignore[attr-defined]
            return
        backbone = pl_module.backbone
        assert isinstance(backbone, Backbone)
        if not all_finite(backbone.parameters()):
            raise NotFinite("The model has weights that are NaN or infinite; it is not exported.")
        place = run_folder(trainer) / "export"

        def write() -> None:
            with atomic_folder(place) as folder:
                self._write(backbone, folder)

        together(write, trainer.strategy)
        log.info("Exported to %s", place)

    def _write(self, backbone: Backbone, folder: Path) -> None:
        if any(is_adapter(name) for name, _ in backbone.named_parameters()):
            backbone.save_lora(folder)
        if backbone.token_rows:
            backbone.save_tokens(folder / "tokens")
        if self.pipeline:
            backbone.save(folder / "model")
