"""Options of diffusers, accelerate, Anti-DreamBooth and kohya scripts, and their names here.

Used for error messages only: an old name is never accepted, so that a setting has one name.
"""

import re

_MODEL = (
    "pretrained_model_name_or_path",
    "revision",
    "variant",
    "learning_rate",
    "lr_warmup_steps",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "adam_weight_decay",
    "gradient_checkpointing",
    "use_8bit_adam",
    "train_text_encoder",
    "text_encoder_lr",
    "snr_gamma",
    "rank",
    "lora_dropout",
    "use_dora",
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
    "center_crop",
    "random_flip",
    "repeats",
    "train_batch_size",
    "dataloader_num_workers",
    "sample_batch_size",
)

# New key, or a sentence where there is none. Options of the command line start with "--".
OLD_NAMES: dict[str, str] = {
    **{name: f"--model.{name}" for name in _MODEL},
    **{name: f"--data.{name}" for name in _DATA},
    # diffusers and accelerate
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
    "validation_prompt": "--data.eval_prompts",
    "num_validation_images": "--data.images_per_prompt",
    "enable_xformers_memory_efficient_attention": "nothing, torch's fast attention is always on",
    "pre_compute_text_embeddings": "--model.cache_text_embeddings",
    # Anti-DreamBooth and its relatives; a budget is in /255 of [0, 1] here
    "instance_data_dir_for_train": "--data.instance_data_dir",
    "instance_data_dir_for_adversarial": "--data.instance_data_dir",
    "pgd_eps": "--data.attack.epsilon (in /255 of [0, 1])",
    "pgd_alpha": "--data.attack.step_size (in /255 of [0, 1])",
    "max_adv_train_steps": "--data.attack.steps",
    # kohya sd-scripts
    "network_dim": "--model.rank",
    "network_alpha": "--model.lora_alpha",
    "min_snr_gamma": "--model.snr_gamma",
    "noise_offset": "--model.noise_offset",
    "unet_lr": "--model.learning_rate",
    "cache_latents": "--data.cache_latents",
    "train_data_dir": "--data.instance_data_dir",
    "reg_data_dir": "--data.class_data_dir",
    "sample_prompts": "--data.predict_prompts_file",
    "output_name": "--name",
    "save_every_n_steps": "--trainer.callbacks+=ModelCheckpoint "
    "--trainer.callbacks.every_n_train_steps",
}

# Accelerate's value, which difflib takes for 'bf16'.
OLD_VALUES: dict[str, str] = {"fp16": "16-mixed"}


def new_name(option: str) -> str:
    """What to write instead of `option` ("--max_train_steps=5"), or "" if it is no old name."""
    match = re.match(r"--([\w-]+)(=|$)", option)
    return OLD_NAMES.get(match[1].replace("-", "_"), "") if match else ""
