"""Options of diffusers, accelerate, Anti-DreamBooth and kohya scripts, and their names here; and
keys that this program had before.

Used for error messages only: an old name is never accepted, so that a setting has one name.
"""

import re
from collections.abc import Mapping

_MODEL = (
    "pretrained_model_name_or_path",
    "revision",
    "variant",
    "learning_rate",
    "lr_warmup_steps",
    "train_text_encoder",
    "text_encoder_lr",
    "snr_gamma",
    "rank",
    "prior_loss_weight",
)

_DATA = (
    "instance_data_dir",
    "class_data_dir",
    "instance_prompt",
    "class_prompt",
    "with_prior_preservation",
    "num_class_images",
    "resolution",
    "train_batch_size",
    "sample_batch_size",
)

# New key, or a sentence where there is none. Options of the command line start with "--".
OLD_NAMES: dict[str, str] = {
    **{name: f"--model.{name}" for name in _MODEL},
    **{name: f"--data.{name}" for name in _DATA},
    # diffusers and accelerate
    "adam_beta1": "--model.adam.beta1",
    "adam_beta2": "--model.adam.beta2",
    "adam_epsilon": "--model.adam.epsilon",
    "adam_weight_decay": "--model.adam.weight_decay",
    "gradient_checkpointing": "--model.compute.gradient_checkpointing",
    "use_8bit_adam": "--model.adam.eight_bit",
    "lora_dropout": "--model.adapter.dropout",
    "use_dora": "--model.adapter.dora",
    "center_crop": "--data.training.center_crop",
    "random_flip": "--data.training.random_flip",
    "repeats": "--data.training.repeats",
    "dataloader_num_workers": "--data.training.num_workers",
    "max_train_steps": "--trainer.max_steps",
    "num_train_epochs": "--trainer.max_epochs",
    "gradient_accumulation_steps": "--trainer.accumulate_grad_batches",
    "mixed_precision": "--trainer.precision (bf16-mixed or 16-mixed)",
    "max_grad_norm": "--trainer.gradient_clip_val",
    "num_processes": "--trainer.devices",
    "multi_gpu": "--trainer.devices",
    "resume_from_checkpoint": "--ckpt_path (a file, or last)",
    "checkpointing_steps": "--trainer.callbacks+=ModelCheckpoint "
    "--trainer.callbacks.every_n_train_steps",
    "checkpoints_total_limit": "--trainer.callbacks+=ModelCheckpoint "
    "--trainer.callbacks.save_top_k",
    "report_to": "--trainer.logger",
    "log_with": "--trainer.logger",
    "logging_dir": "--output_dir",
    "seed": "--seed_everything",
    "offset_noise": "--model.noise_offset",
    "validation_steps": "--trainer.val_check_interval",
    "caption_column": "--data.use_captions",
    "validation_prompt": "--data.evaluation.prompts",
    "num_validation_images": "--data.evaluation.images_per_prompt",
    "enable_xformers_memory_efficient_attention": "nothing, torch's fast attention is always on",
    "pre_compute_text_embeddings": "--model.compute.cache_text_embeddings",
    # Anti-DreamBooth and its relatives; a budget is in /255 of [0, 1] here
    "instance_data_dir_for_train": "--data.instance_data_dir",
    "instance_data_dir_for_adversarial": "--data.instance_data_dir",
    "pgd_eps": "--data.attack.epsilon (in /255 of [0, 1])",
    "pgd_alpha": "--data.attack.step_size (in /255 of [0, 1])",
    "max_adv_train_steps": "--data.attack.steps",
    # kohya sd-scripts
    "network_dim": "--model.rank",
    "network_alpha": "--model.adapter.alpha",
    "min_snr_gamma": "--model.snr_gamma",
    "noise_offset": "--model.noise_offset",
    "unet_lr": "--model.learning_rate",
    "cache_latents": "--data.cache_latents",
    "train_data_dir": "--data.instance_data_dir",
    "reg_data_dir": "--data.class_data_dir",
    "sample_prompts": "--data.evaluation.predict_prompts_file",
    "output_name": "--name",
    "save_every_n_steps": "--trainer.callbacks+=ModelCheckpoint "
    "--trainer.callbacks.every_n_train_steps",
}

# Keys of this program -> where they are since its settings lie in groups.
MOVED: dict[str, str] = {
    "data.eval_prompts": "data.evaluation.prompts",
    "data.images_per_prompt": "data.evaluation.images_per_prompt",
    "data.eval_batch_size": "data.evaluation.batch_size",
    "data.negative_prompt": "data.evaluation.negative_prompt",
    "data.eval_seed": "data.evaluation.seed",
    "data.eval_base": "data.evaluation.base",
    "data.predict_prompts": "data.evaluation.predict_prompts",
    "data.predict_prompts_file": "data.evaluation.predict_prompts_file",
    "data.class_attacks": "data.noisy_class_images.attacks",
    "data.class_transplant": "data.noisy_class_images.transplant",
    "data.class_transplant_limit": "data.noisy_class_images.transplant_limit",
    "data.num_noisy_class_images": "data.noisy_class_images.count",
    "data.repeats": "data.training.repeats",
    "data.picture_repeats": "data.training.picture_repeats",
    "data.center_crop": "data.training.center_crop",
    "data.random_flip": "data.training.random_flip",
    "data.dataloader_num_workers": "data.training.num_workers",
    "model.lora_alpha": "model.adapter.alpha",
    "model.lora_dropout": "model.adapter.dropout",
    "model.use_dora": "model.adapter.dora",
    "model.lora_convolutions": "model.adapter.convolutions",
    "model.rank_pattern": "model.adapter.rank_pattern",
    "model.adam_beta1": "model.adam.beta1",
    "model.adam_beta2": "model.adam.beta2",
    "model.adam_weight_decay": "model.adam.weight_decay",
    "model.adam_epsilon": "model.adam.epsilon",
    "model.use_8bit_adam": "model.adam.eight_bit",
    "model.gradient_checkpointing": "model.compute.gradient_checkpointing",
    "model.checkpointed_blocks": "model.compute.checkpointed_blocks",
    "model.frozen_dtype": "model.compute.frozen_dtype",
    "model.cache_text_embeddings": "model.compute.cache_text_embeddings",
    "model.free_text_encoders": "model.compute.free_text_encoders",
    "model.free_autoencoder": "model.compute.free_autoencoder",
    "model.compile_unet": "model.compute.compile_unet",
    "model.num_inference_steps": "model.sampling.num_inference_steps",
    "model.guidance_scale": "model.sampling.guidance_scale",
    "model.true_cfg_scale": "model.sampling.true_cfg_scale",
    "model.sampling_scheduler": "model.sampling.scheduler",
    "audit.blind": "audit.controls.blind",
    "audit.blind_encoder": "audit.controls.blind_encoder",
    "audit.caption_controls": "audit.controls.captions",
    "audit.fixed_caption": "audit.controls.fixed_caption",
    "audit.ladder_error": "audit.statistics.ladder_error",
    "audit.permutations": "audit.statistics.permutations",
    "audit.fprs": "audit.statistics.fprs",
    "audit.resamples": "audit.statistics.resamples",
    "audit.batch_size": "audit.compute.batch_size",
    "audit.images_per_chunk": "audit.compute.images_per_chunk",
    "audit.bf16": "audit.compute.bf16",
    "audit.device": "audit.compute.device",
}

# Accelerate's value, which difflib takes for 'bf16'.
OLD_VALUES: dict[str, str] = {"fp16": "16-mixed"}


def new_name(option: str) -> str:
    """What to write instead of `option` ("--max_train_steps=5"), or "" if it is no old name."""
    match = re.match(r"--([\w-]+)(=|$)", option)
    return OLD_NAMES.get(match[1].replace("-", "_"), "") if match else ""


def moved(option: str) -> str:
    """Where a key of this program is now, "" where it is still there; with or without a value."""
    key = option.partition("=")[0].removeprefix("--").rstrip("+").replace(".init_args.", ".")
    return MOVED.get(key, "")


def moved_in(settings: object) -> dict[str, str]:
    """The same for all keys of a parsed file of settings that are among `MOVED`. Classes of the
    user's own may have arguments of such names, so only those are looked at that ours are."""
    found: dict[str, str] = {}
    for part in ("data", "model", "audit"):
        given = settings.get(part) if isinstance(settings, Mapping) else None
        if not isinstance(given, Mapping):
            continue
        inner = given.get("init_args", given)
        if part != "audit" and not _ours(str(given.get("class_path", ""))):
            continue
        for name in inner if isinstance(inner, Mapping) else ():
            if new := MOVED.get(f"{part}.{name}"):
                found[f"{part}.{name}"] = new
    return found


def _ours(class_path: str) -> bool:
    """Whether a class is the data module or one of the modules that the keys have moved in."""
    if not class_path:
        return True
    from shortcut_lightning.cli.class_index import class_index, descendants

    kinds = {"PersonalizationDataModule", "DreamBooth", *descendants("DreamBooth", class_index())}
    return class_path.rpartition(".")[2] in kinds
