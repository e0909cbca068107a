"""What a folder was made for: the same question goes on there, another one needs another folder."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.verify.recipe import Recipe

FILE = "asked.json"


class Asked(NamedTuple):
    """A recipe with its photographs, as plain types."""

    settings: dict[str, Any]  # by key of the command line
    photographs: list[str]  # hashes of their files

    @classmethod
    def by(cls, recipe: Recipe, paths: Sequence[Path]) -> "Asked":
        """What a recipe asks of these photographs."""
        nested = {**recipe.config, "data.attack": recipe.attack, "data.purifiers": recipe.purifiers}
        nested["data.reference_data_dir"] = recipe.reference
        settings: dict[str, Any] = json.loads(json.dumps(flat(nested)))
        return cls(settings, [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths])

    def write(self, root: Path) -> None:
        """Writes it down in a folder."""
        with atomic(root / FILE) as half:
            half.write_text(json.dumps(self._asdict(), indent=1) + "\n", encoding="utf-8")


def refuse_other(root: Path, asked: Asked) -> None:
    """Raises ValueError where the folder was made for other settings or photographs."""
    file = root / FILE
    if not file.is_file():
        return
    try:
        before = Asked(**json.loads(file.read_text("utf-8")))
    except (ValueError, TypeError):
        raise ValueError(f"{file} cannot be read; give another --output.") from None
    keys = [*asked.settings, *(key for key in before.settings if key not in asked.settings)]
    for key in keys:
        was, now = before.settings.get(key), asked.settings.get(key)
        if was != now:
            raise ValueError(f"{root} was made with {key} {was}, now {now}; give another --output.")
    if before.photographs != asked.photographs:
        raise ValueError(f"{root} was made of other photographs; give another --output.")


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their keys on the command line; lists stay."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}".lstrip(".")
        if isinstance(value, dict) and value:
            found |= flat(value, name)
        else:
            found[name] = value
    return found
