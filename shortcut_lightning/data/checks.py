"""Settings of the data module that cannot go together, said before anything is loaded."""

import logging
from typing import TYPE_CHECKING

from shortcut_lightning.ranges import at_least

if TYPE_CHECKING:
    from shortcut_lightning.data.datamodule import PersonalizationDataModule

log = logging.getLogger(__name__)


def check_settings(data: "PersonalizationDataModule") -> None:
    """Raises ValueError for the first thing that is wrong, naming its key."""
    if data.cache_latents and data.random_flip:
        raise ValueError(
            "data.cache_latents encodes each image once, but data.random_flip mirrors it at "
            "random: set one of them to false."
        )
    if data.cache_latents and not data.center_crop:
        raise ValueError(
            "data.cache_latents encodes each image once, but data.center_crop is false, which "
            "crops it anew each time: set data.center_crop to true or data.cache_latents to "
            "false."
        )
    if data.resolution < 0:
        raise ValueError(
            f"data.resolution is {data.resolution}; give the side in pixels, or 0 for the "
            "model's own."
        )
    if data.prompts.decoupling.training and not data.with_prior_preservation:
        log.warning(
            "data.decoupling.training without data.with_prior_preservation: nothing is said "
            "to be without the noise, so there is no contrast."
        )
    if data.with_prior_preservation and not data.prompts.class_prompt:
        raise ValueError(
            "data.with_prior_preservation needs data.class_prompt, such as 'a photo of a dog'."
        )
    for key in ("class_attacks", "class_transplant"):
        if getattr(data, key) and not (
            data.with_prior_preservation and data.prompts.decoupling.training
        ):
            raise ValueError(
                f"data.{key} needs class images that are called noisy: set "
                "data.with_prior_preservation and data.decoupling.training to true, or leave it "
                "out."
            )
    if data.class_transplant_limit <= 0:
        raise ValueError(
            f"data.class_transplant_limit is {data.class_transplant_limit}; it is in /255 and must "
            "be above 0."
        )
    if data.num_noisy_class_images < 0:
        raise ValueError(
            f"data.num_noisy_class_images is {data.num_noisy_class_images}; give a number of "
            "images, or 0 for all."
        )
    at_least(
        1,
        "data",
        num_class_images=data.num_class_images,
        sample_batch_size=data.sample_batch_size,
        repeats=data.repeats,
        train_batch_size=data.train_batch_size,
        images_per_prompt=data.images_per_prompt,
        eval_batch_size=data.eval_batch_size,
    )
