"""Unconditional models in pixels that predict the noise: DDPM pipelines of diffusers."""

from functools import lru_cache
from typing import Any

from shortcut_lightning import weights
from shortcut_lightning.backbones import pipelines
from shortcut_lightning.backbones.paths import Path, VariancePreserving


@lru_cache(maxsize=1)
def load(source: str, key: str) -> tuple[Any, Path]:
    """A frozen U-Net, in evaluation mode, and its noise schedule.

    Args:
        source: Folder or hub id.
        key: The setting that named it.

    Raises ValueError where it cannot be loaded, or predicts something else than the noise.
    """
    from diffusers import DDPMPipeline, DDPMScheduler  # seconds, which few runs need

    try:
        pipeline = pipelines.load(DDPMPipeline, source, key)
    except weights.WeightsError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Cannot load the pixel diffusion model '{source}' "
            f"({str(error).strip().splitlines()[0]}); give a folder or hub id of an unconditional "
            "DDPM pipeline of diffusers, or leave pixel_model empty for the run's own model "
            f"({key})."
        ) from error
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    if schedule.config.prediction_type != "epsilon":
        raise ValueError(
            f"The pixel diffusion model '{source}' predicts "
            f"'{schedule.config.prediction_type}'; only 'epsilon' is known here."
        )
    network = pipeline.unet.eval().requires_grad_(False)
    return network, VariancePreserving(schedule.alphas_cumprod.float())
