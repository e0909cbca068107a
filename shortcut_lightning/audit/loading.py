"""Which model is meant: a folder, a hub id, a finished run, with or without a LoRA."""

from dataclasses import dataclass, field, fields
from pathlib import Path

from shortcut_lightning import backbones, weights
from shortcut_lightning.backbones import Backbone


@dataclass
class AuditedModel:
    """A model of an audit; without a name there is none.

    Args:
        pretrained_model_name_or_path: `pocket`, a diffusers folder, a hub id, or the folder of a
            finished `fit` with the callback `Export`, whose model is taken.
        checkpoint: A `.ckpt` of a `fit` of the whole model, laid over it: the state in the middle
            of a training.
        lora: A LoRA file or folder (diffusers or kohya keys), merged into the weights.
        embeddings: Textual-inversion files.
        revision: Branch, tag or commit on the hub.
        variant: Weight file variant, for example `fp16`.
        single_file_config: For a checkpoint in one file, the folder of CLIP's tokenizer.
    """

    pretrained_model_name_or_path: str = ""
    checkpoint: str = ""
    lora: str = ""
    embeddings: list[str] = field(default_factory=list)
    revision: str = ""
    variant: str = ""
    single_file_config: str = ""

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return bool(self.pretrained_model_name_or_path)

    def require_name(self, key: str) -> None:
        """Raises ValueError where something is given that belongs to a model, and no model."""
        others = [each.name for each in fields(self) if getattr(self, each.name)]
        if others and not self.given:
            raise ValueError(
                f"{key}.{others[0]} is given without a model; give "
                f"{key}.pretrained_model_name_or_path too."
            )

    def load(self, key: str = "audit.target") -> Backbone:
        """The model in float32, frozen, in eval mode.

        Raises ValueError when the name leads nowhere or the parts do not fit; `key` is what the
        user called this model.
        """
        name = self.pretrained_model_name_or_path
        model = backbones.load(
            exported_model(Path(name)) or name,
            self.revision,
            self.variant,
            key=f"{key}.pretrained_model_name_or_path",
            single_file_config=self.single_file_config,
        )
        if self.checkpoint:
            _lay_over(model, Path(self.checkpoint), f"{key}.checkpoint")
        try:
            if self.lora:
                model.load_lora(self.lora)
            if self.embeddings:
                model.load_tokens(self.embeddings)
        except ValueError as error:  # a backbone speaks of the model that learns
            raise ValueError(str(error).replace("(model.", f"({key}.")) from error
        return model.eval().requires_grad_(False)


def exported_model(run: Path) -> str:
    """The diffusers folder that a finished `fit` left in its run's folder, or in the newest version
    of a run by that name; "" where there is none."""
    versions = sorted(run.glob("version_*/export/model"), key=_version)
    found = [*versions, run / "export" / "model"][::-1]
    return next((str(folder) for folder in found if folder.is_dir()), "")


def _lay_over(model: Backbone, path: Path, key: str) -> None:
    """Takes the trained weights of a checkpoint, the averaged ones where there are any.

    Raises ValueError for a file that is no checkpoint, or one of another model.
    """
    try:
        found, _ = weights.read(path, key)
    except OSError as error:
        raise ValueError(f"There is no checkpoint '{path}' ({error.strerror}) ({key}).") from error
    stored = found.get("state_dict")
    if not isinstance(stored, dict):
        raise ValueError(f"{path} is no checkpoint of `fit`: it has no state_dict ({key}).")
    weights.refuse_not_finite(stored.items(), str(path), key)
    own = model.state_dict()
    learned = {name.removeprefix("backbone."): tensor for name, tensor in stored.items()}
    strange = [n for n, tensor in learned.items() if n not in own or own[n].shape != tensor.shape]
    if strange or not learned:
        raise ValueError(
            f"{path} does not fit the model (first at {strange[0] if strange else 'nothing'!r}); "
            "it takes checkpoints of the whole model. For adapters and new words give the run's "
            f"export/, by lora and embeddings ({key})."
        )
    model.load_state_dict(learned, strict=False)


def _version(folder: Path) -> int:
    number = folder.parents[1].name.removeprefix("version_")
    return int(number) if number.isdecimal() else -1
