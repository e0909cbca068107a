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
            finished `fit`, whose exported model is taken.
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
        exported = Path(name) / "export" / "model"
        model = backbones.load(
            str(exported) if exported.is_dir() else name, self.revision, self.variant
        )
        if self.lora:
            model.load_lora(self.lora)
        if self.embeddings:
            model.load_tokens(self.embeddings)
        return model.eval().requires_grad_(False)
