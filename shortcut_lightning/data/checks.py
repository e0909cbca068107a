"""Settings of the data module that cannot go together, said before anything is loaded."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortcut_lightning.attacks.base import NoAttack
from shortcut_lightning.concepts.erasing import Erasing
from shortcut_lightning.files.folders import is_pocket

if TYPE_CHECKING:
    from shortcut_lightning.data.datamodule import PersonalizationDataModule

log = logging.getLogger(__name__)


def check_settings(data: "PersonalizationDataModule") -> None:
    """Raises ValueError for the first thing that is wrong, naming its key."""
    if data.cache_latents and data.training.random_flip:
        raise ValueError(
            "data.cache_latents encodes each image once, but data.training.random_flip mirrors it "
            "at random: set one of them to false."
        )
    if data.cache_latents and not data.training.center_crop:
        raise ValueError(
            "data.cache_latents encodes each image once, but data.training.center_crop is false, "
            "which crops it anew each time: set data.training.center_crop to true or "
            "data.cache_latents to false."
        )
    if data.bucketing and not data.training.center_crop:
        raise ValueError(
            "data.bucketing fits each picture into its bucket, so that there is no crop to draw: "
            "set data.training.center_crop to true."
        )
    if (ratio := data.training.bucket_ratio) != 2 and not data.bucketing:
        log.warning("data.training.bucket_ratio is %g, but data.bucketing is false.", ratio)
    if data.attack_share < 1 and isinstance(data.attack, NoAttack):
        log.warning("data.attack_share is %g, but there is no data.attack.", data.attack_share)
    if data.prompts.decoupling.training and not data.with_prior_preservation:
        log.warning(
            "data.decoupling.training without data.with_prior_preservation: nothing is said "
            "to be without the noise, so there is no contrast."
        )
    _check_class_folder(data)
    if data.with_prior_preservation and not data.prompts.class_prompt:
        raise ValueError(
            "data.with_prior_preservation needs data.class_prompt, such as 'a photo of a dog'."
        )
    for key in ("attacks", "transplant"):
        if getattr(data.noisy_class_images, key) and not (
            data.with_prior_preservation and data.prompts.decoupling.training
        ):
            raise ValueError(
                f"data.noisy_class_images.{key} needs class images that are called noisy: set "
                "data.with_prior_preservation and data.decoupling.training to true, or leave it "
                "out."
            )
    _check_copies(data)
    words = (
        data.erasing.negative != "none", data.prompts.negative_prompt, data.decoupling.negative
    )  # fmt: skip
    if data.erasing.safety and not any(words):
        raise ValueError(
            "data.erasing.safety leads away from the negative prompt, and there is none: set "
            "data.erasing.negative to 'name', or give data.evaluation.negative_prompt."
        )


def _check_copies(data: "PersonalizationDataModule") -> None:
    copies, rule = data.training.copies, data.decoupling
    if data.erasing != Erasing() and (copies or not rule.purified_too):
        key = "data.training.copies" if copies else "data.decoupling.purified_too false"
        raise ValueError(
            f"{key} and data.erasing do not go together: what is written about concepts is about "
            "the photographs of data.purifiers. Leave one of them out."
        )
    if data.training.agreement and not copies:
        raise ValueError(
            "data.training.agreement weighs places by how much copies of a photograph agree: give "
            "data.training.copies, or set it to 0."
        )
    if data.training.agreement and (data.training.random_flip or not data.training.center_crop):
        raise ValueError(
            "data.training.agreement weighs places of photographs that are shown as they are: set "
            "data.training.random_flip to false and data.training.center_crop to true."
        )
    cleaned = data.purifiers and all(copy.purifiers for copy in copies)
    if rule.training and not rule.purified_too and cleaned:
        log.warning(
            "data.decoupling.purified_too is false and every photograph is purified: the noise "
            "words are about none of them. Add a copy without purifiers (data.training.copies)."
        )


def check_subject(data: "PersonalizationDataModule", side: int, multiple: int) -> None:
    """Raises ValueError where nothing names the subject, and where the `side` of images is none
    that the model can take, a `multiple` of pixels."""
    if not data.prompts.instance_prompt:
        raise ValueError(
            "data.instance_prompt is not set; say what the images show with a rare word for "
            "the subject, such as 'a photo of sks dog'."
        )
    if side % multiple:
        raise ValueError(f"data.resolution is {side}; this model needs a multiple of {multiple}.")


def check_model(
    data: "PersonalizationDataModule", settings: Mapping[str, Any], steerable: bool = True
) -> None:
    """Raises ValueError where the model's `settings` leave safe guidance no guidance, its family
    has none that can be steered, or each prompt is embedded once while captions change from one
    example to the next."""
    if data.erasing.safety and not steerable:
        raise ValueError(
            "data.erasing.safety bends the guidance of models that are asked for both prompts in "
            "one call, which this family is not: set it to null."
        )
    if data.captions.random and settings.get("cache_text_embeddings"):
        key = "shuffle" if data.captions.shuffle else "dropout"
        raise ValueError(
            f"model.compute.cache_text_embeddings embeds each prompt once, but data.captions.{key} "
            "makes another at random: set model.compute.cache_text_embeddings to false, or leave "
            f"data.captions.{key} out."
        )
    scale = settings.get("guidance_scale", 7.5)
    if data.erasing.safety and scale <= 1:
        raise ValueError(
            "data.erasing.safety bends classifier-free guidance, and model.sampling.guidance_scale "
            f"is {scale:g}, which is none: set it above 1, or data.erasing.safety to null."
        )


def check_learnt_words(data: "PersonalizationDataModule", settings: Mapping[str, Any]) -> None:
    """Raises ValueError where the model learns the words of places alone, by its `settings`, and no
    caption says them."""
    said = data.erasing.caption
    if settings.get("removal") == "model" and said != "geometry":
        raise ValueError(
            "model.removal 'model' learns nothing but the words of places, which no caption says "
            f"while data.erasing.caption is '{said}': set it to 'geometry', or model.removal to "
            "'data'."
        )


def _check_class_folder(data: "PersonalizationDataModule") -> None:
    if not data.class_data_dir:
        return
    if not data.with_prior_preservation:
        log.warning(
            "data.class_data_dir is not used, because data.with_prior_preservation is false."
        )
        return
    folder = Path(data.class_data_dir).expanduser().resolve()
    for key in ("instance_data_dir", "reference_data_dir"):
        given = getattr(data, key)
        if given and not is_pocket(given) and Path(given).expanduser().resolve() == folder:
            raise ValueError(
                f"data.class_data_dir is {data.class_data_dir}, the folder of data.{key}: pictures "
                "of the subject would be called others of its class. Give another folder, or leave "
                "it empty for the cache."
            )
