"""What is written down about copies: how they were made, so that they can be made again, and which
are finished, so that a killed `protect` or `purify` goes on with its own and leaves others' alone.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.draws import run_seed
from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.files.cache import describe
from shortcut_lightning.metrics.fidelity import Fidelity
from shortcut_lightning.pocket import BUILT_IN
from shortcut_lightning.report.summary import installed_versions

BEGUN = "measured/begun.json"  # gone once everything is written


def recipe(
    verb: str, stages: Any, backbone: Backbone, model_name: str, side: int, copies: Any
) -> dict[str, Any]:
    """All that decides the copies of a folder, as plain types.

    Args:
        verb: "protect" or "purify".
        stages: The attack, or the list of purifiers.
        backbone: The model that was borrowed for it.
        model_name: What the user calls that model.
        side: Shorter side in pixels at which the change was computed.
        copies: How copies are written.
    """
    settings = {name: getattr(copies, name) for name in ("format", "quality", "metadata")}
    made = {
        "verb": verb,
        "stages": describe(stages),
        "model": {"name": against(stages, model_name), "fingerprint": backbone.fingerprint()},
        "side": side,
        "seed": run_seed(),
        "written as": settings,
        "versions": installed_versions(),
    }
    return dict(json.loads(json.dumps(made)))


def against(stages: Any, model_name: str) -> str:
    """The model that an attack was made against: its surrogate's, where it names one."""
    return Path(getattr(stages, "surrogate", "") or model_name or "the model").name


def cautions(verb: str, name: str, side: int, larger: int, of: int) -> list[str]:
    """What whoever trusts these copies has to know."""
    said = []
    if verb == "protect":
        said.append(f"Protected against {name}, and shown to work against no other model.")
        if name in BUILT_IN:
            said.append(
                f"{name} is the built-in rehearsal: these copies mean nothing against Stable "
                "Diffusion, FLUX or any model that people use; name one by "
                "--model.pretrained_model_name_or_path."
            )
    if larger:
        what = "pattern was computed at" if verb == "protect" else "picture was purified at"
        said.append(
            f"{larger} of {of} photographs are larger than the model's side: the {what} {side} "
            "pixels and enlarged."
        )
    return said


class Begun:
    """Copies of one recipe that are finished, in a file that is rewritten before each appears.

    A copy gets its name after its row is written down, so a file of that name with those bytes is
    this recipe's own; one without a row is somebody else's.

    Args:
        folder: The output folder.
        made: The recipe.
    """

    def __init__(self, folder: Path, made: Mapping[str, Any]) -> None:
        self.folder, self.path, self.made = folder, folder / BEGUN, dict(made)
        self.rows: dict[str, dict[str, Any]] = {}
        try:
            noted = json.loads(self.path.read_text("utf-8"))
            if noted["recipe"] == self.made:
                self.rows = dict(noted["copies"])
        except (OSError, ValueError, KeyError, TypeError):  # not begun, or begun otherwise
            self.rows = {}

    def finished(self, target: Path, original: Path) -> bool:
        """Whether a copy of this very photograph is there as it was written."""
        row = self.rows.get(self._name(target))
        if not row or not target.is_file() or row["photograph"] != digest(original):
            return False
        return bool(row["copy"] == digest(target))

    def note(self, target: Path, original: Path, half: Path) -> None:
        """Writes down a copy that lies in `half` and is about to get its name."""
        row = {"photograph": digest(original), "copy": digest(half)}
        self.rows[self._name(target)] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(self.path) as file:
            file.write_text(json.dumps({"recipe": self.made, "copies": self.rows}), "utf-8")

    def end(self) -> None:
        """Everything is written."""
        self.path.unlink(missing_ok=True)

    def _name(self, target: Path) -> str:
        return target.relative_to(self.folder).as_posix()


def digest(file: Path) -> str:
    """Hash of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def plain(name: str, measured: Fidelity) -> dict[str, Any]:
    """A row for JSON; an infinite ratio is null."""
    numbers = measured._asdict().items()
    return {"file_name": name} | {k: v if math.isfinite(v) else None for k, v in numbers}
