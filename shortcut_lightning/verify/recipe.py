"""What is to be verified: a recipe for training, the protection, the photographs."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]

# Callbacks that keep a model, or pictures that nobody looks at, in each of twenty runs; and sets
# of pictures are too small here for a distance between sets.
_LEFT_OUT = ("Export", "SampleGrid", "FrechetDistance", "Stages", "StageFidelity")
_NEEDED = ("Evaluation", "ReportWriter")
_OF_QUALITY = ("Quality", "ClipIqa", "PyiqaQuality", "PaperQuality")
_CALLBACKS = "shortcut_lightning.callbacks"


@dataclass(frozen=True)
class Recipe:
    """A merged configuration of `fit`, taken apart.

    Attributes:
        config: seed, trainer, model and data of each training, without photographs, attack and
            purifiers.
        attack: class path and arguments of the protection.
        purifiers: Those of the configuration, which are tried as well.
        source: `data.instance_data_dir`.
        reference: `data.reference_data_dir`.
        recursive: `data.recursive`.
    """

    config: Config
    attack: Config
    purifiers: list[Config]
    source: str
    reference: str
    recursive: bool

    @property
    def data(self) -> Config:
        """Arguments of the data module."""
        return dict(self.config["data"]["init_args"])

    @property
    def model(self) -> str:
        """The model that is attacked, and trained."""
        return str(self.config["model"]["init_args"]["pretrained_model_name_or_path"])

    @property
    def protection(self) -> str:
        """The attack's name."""
        return short(self.attack)

    @property
    def epsilon(self) -> float:
        """Its radius in /255."""
        return float(self.attack["init_args"]["epsilon"])

    @property
    def steps(self) -> int:
        """Optimiser steps of a training; -1 where epochs or time end it."""
        return int(self.config["trainer"].get("max_steps", -1))

    @property
    def pictures(self) -> int:
        """How many are made of each trained model."""
        sampled = self.data["evaluation"]
        return max(1, len(sampled["prompts"])) * int(sampled["images_per_prompt"])

    @property
    def measures(self) -> int:
        """Of how many an effect is asked: identity, and quality where one is measured."""
        names = [short(each) for each in self.config["trainer"]["callbacks"]]
        return 1 + any(name in _OF_QUALITY for name in names)

    def protecting(self, folder: str, attack: Config) -> Config:
        """The configuration of `protect`, for the photographs of a folder."""
        config = copy.deepcopy(self.config)
        config["data"]["init_args"] |= {"instance_data_dir": folder, "attack": attack}
        return config


def read(merged: Mapping[str, Any]) -> Recipe:
    """Takes apart the settings that `fit` would run with.

    Raises:
        ValueError: no protection or one of a share of the photographs, no training, another data
            module or model than these trainings need, or no measure of identity.
    """
    config: Config = copy.deepcopy({k: merged[k] for k in ("trainer", "model", "data")})
    config = {"seed_everything": merged.get("seed_everything") or 0, **config}
    data = (config["data"] or {}).get("init_args") or {}
    model = (config["model"] or {}).get("init_args") or {}
    if "attack" not in data or "pretrained_model_name_or_path" not in model:
        raise ValueError(
            "verify needs data: PersonalizationDataModule and a model with "
            "pretrained_model_name_or_path, such as DreamBooth; a recipe like quickstart has both."
        )
    attack, purifiers = data.pop("attack"), data.pop("purifiers") or []
    if short(attack) == "NoAttack":
        raise ValueError(
            "data.attack is not set, so there is no protection to verify; for example "
            "--data.attack pocket/advdm."
        )
    if (share := data.pop("attack_share", 1.0)) != 1:
        raise ValueError(
            f"data.attack_share is {share:g}, and verify protects all of the photographs; leave it "
            "out. What a share is worth is a matrix of its own: bench --config attack_share."
        )
    if 0 in (config["trainer"].get("max_steps"), config["trainer"].get("max_epochs")):
        raise ValueError(
            "trainer.max_steps or max_epochs is 0: nothing would be learnt, from protected "
            "photographs or others."
        )
    attack.setdefault("init_args", {}).setdefault("epsilon", 11.0)
    source, recursive = data.pop("instance_data_dir"), data.pop("recursive")
    reference = data.pop("reference_data_dir")
    data["evaluation"]["base"] = False
    trainer = config["trainer"]
    # One device a run, as `bench` has it; several are kept busy by several workers.
    trainer |= {"devices": 1, "enable_progress_bar": False, "enable_model_summary": False}
    trainer["callbacks"] = _callbacks(trainer.get("callbacks") or [])
    return Recipe(config, attack, purifiers, str(source), str(reference), bool(recursive))


def short(entry: Mapping[str, Any]) -> str:
    """The name of a class in a configuration, without its module."""
    return str(entry["class_path"]).rpartition(".")[2]


def _callbacks(given: list[Config]) -> list[Config]:
    kept = [each for each in given if short(each) not in _LEFT_OUT]
    names = [short(each) for each in kept]
    measures = [each for each in kept if short(each) == "IdentityMatch"]
    if not measures:
        raise ValueError(
            "verify asks whether the subject is still learnt, and trainer.callbacks has no "
            "IdentityMatch; add it: --trainer.callbacks+ IdentityMatch."
        )
    added = [name for name in _NEEDED if name not in names]
    encoders = [each.get("init_args", {}).get("encoder") or {} for each in measures]
    if any("Pocket" in str(encoder.get("class_path")) for encoder in encoders):
        added += [name for name in ("Quality", "TextureLevel") if name not in names]
    first = [{"class_path": f"{_CALLBACKS}.{name}"} for name in added if name == "Evaluation"]
    last = [{"class_path": f"{_CALLBACKS}.{name}"} for name in added if name != "Evaluation"]
    return [*first, *kept, *last]
