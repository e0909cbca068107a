"""Which model is meant: a folder, a hub id, a finished run, with or without a LoRA."""

from dataclasses import dataclass, field
from pathlib import Path

from shortcut_lightning import backbones
from shortcut_lightning.backbones import Backbone


@dataclass
class AuditedModel:
    """A model of an audit; without a name there is none.

    Args:
        pretrained_model_name_or_path: `pocket`, a diffusers folder, a hub id, or the folder of a
            finished `fit` with the callback `Export`, whose model is taken.
        lora: A LoRA file or folder (diffusers or kohya keys), merged into the weights.
        embeddings: Textual-inversion files.
        revision: Branch, tag or commit on the hub.
        variant: Weight file variant, for example `fp16`.
    """

    pretrained_model_name_or_path: str = ""
    lora: str = ""
    embeddings: list[str] = field(default_factory=list)
    revision: str = ""
    variant: str = ""

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return bool(self.pretrained_model_name_or_path)

    def load(self) -> Backbone:
        """The model in float32, frozen, in eval mode.

        Raises ValueError when the name leads nowhere or the parts do not fit.
        """
        name = self.pretrained_model_name_or_path
        model = backbones.load(exported_model(Path(name)) or name, self.revision, self.variant)
        if self.lora:
            model.load_lora(self.lora)
        if self.embeddings:
            model.load_tokens(self.embeddings)
        return model.eval().requires_grad_(False)


def exported_model(run: Path) -> str:
    """The diffusers folder that a finished `fit` left in its run's folder, or in the newest version
    of a run by that name; "" where there is none."""
    versions = sorted(run.glob("version_*/export/model"), key=_version)
    found = [*versions, run / "export" / "model"][::-1]
    return next((str(folder) for folder in found if folder.is_dir()), "")


def _version(folder: Path) -> int:
    number = folder.parents[1].name.removeprefix("version_")
    return int(number) if number.isdecimal() else -1
