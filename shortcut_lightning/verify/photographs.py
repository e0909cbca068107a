"""The photographs, made once for all trainings: as they are, with noise, protected.

    photographs/instance     the user's files, under names of their own
    photographs/reference    what pictures are compared with: held-out ones, or the same again
    photographs/noise        copies with noise of the protection's radius
    photographs/protected    protected copies, which may be published

The copies are those of the verb `protect`, in the photographs' own size.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from filelock import FileLock

from shortcut_lightning.data.copy_records import BEGUN
from shortcut_lightning.data.loading import subject_folders
from shortcut_lightning.files import folders
from shortcut_lightning.files.atomic import atomic
from shortcut_lightning.files.cache import OneProcess, cache_folder
from shortcut_lightning.files.contents import METADATA
from shortcut_lightning.verify.recipe import Config, Recipe

INSTANCE, REFERENCE, NOISE, PROTECTED = "instance", "reference", "noise", "protected"
MEASURED = Path("measured") / "measured.json"
Run = Callable[[list[str]], None]


class Sources(NamedTuple):
    """The user's files."""

    instance: list[folders.Captioned]
    reference: list[folders.Captioned]  # held out, or the same again


def listed(recipe: Recipe) -> Sources:
    """The photographs of a recipe. A generated subject is drawn where it is not there yet.

    Raises:
        ValueError: no folder, or no picture in it, or captions that are asked for and missing.
    """
    cache, captions = cache_folder(recipe.data["cache_dir"]), bool(recipe.data["use_captions"])
    instance, held_out = subject_folders(recipe.source, recipe.reference, cache, OneProcess())
    found = folders.read_folder(instance, "instance_data_dir", captions, recipe.recursive)
    if not held_out:
        return Sources(found, found)
    references = folders.read_folder(held_out, "reference_data_dir", captions, recipe.recursive)
    return Sources(found, references)


def make(
    recipe: Recipe, sources: Sources, root: Path, run: Run, tell: Callable[[str], None]
) -> None:
    """Makes what is missing of `root`/photographs.

    Args:
        recipe: What is asked for.
        sources: Its photographs.
        root: The folder of this verification.
        run: Runs a command line.
        tell: Shows a line to the user.

    Raises:
        ValueError: what the attack refuses.
    """
    folder, given = root / "photographs", sources.instance
    with FileLock(root / ".lock-photographs"):  # the same command in another terminal waits
        texts: dict[str, dict[str, str]] = {}
        for name, entries in ((INSTANCE, given), (REFERENCE, sources.reference)):
            texts[name] = _copied(entries, folder / name)
            _caption(folder / name, texts[name])
        if folders.is_pocket(recipe.source):
            folders.mark_drawn(folder, recipe.source)
        noise = {
            "class_path": "shortcut_lightning.attacks.RandomNoise",
            "init_args": {"epsilon": recipe.epsilon},
        }
        for name, attack in ((PROTECTED, recipe.attack), (NOISE, noise)):
            if not finished(folder / name):
                tell(f"{name}: copies of {len(given)} photographs")
                _protect(recipe.protecting(str(folder / INSTANCE), attack), root, name, run)
            _caption(folder / name, texts[INSTANCE])


def _protect(settings: Config, root: Path, name: str, run: Run) -> None:
    file = root / f"protect-{name}.yaml"
    with atomic(file) as half:
        half.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    words = ["protect", "--config", str(file), "--output", str(root / "photographs" / name)]
    run([*words, "--output_dir", str(root), "--name", "protect"])


def finished(copies: Path) -> bool:
    """Whether all copies of a folder were written and measured."""
    return (copies / MEASURED).is_file() and not (copies / BEGUN).exists()


def _copied(entries: Sequence[folders.Captioned], folder: Path) -> dict[str, str]:
    """Copies files side by side, whatever subfolders they lie in, under names that differ by more
    than their kind; numbered where they do not. Returns the names without kinds, with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    differ = len({entry.path.stem for entry in entries}) == len(entries)
    texts = {}
    for number, entry in enumerate(entries, 1):
        target = folder / (entry.path.name if differ else f"{number:03d}-{entry.path.name}")
        texts[target.stem] = entry.text
        if not target.is_file():
            with atomic(target) as half:
                shutil.copyfile(entry.path, half)
    return texts


def _caption(folder: Path, texts: Mapping[str, str]) -> None:
    """Writes the captions of photographs, or of their copies, beside them."""
    if not any(texts.values()):
        return
    rows = [
        json.dumps({"file_name": path.name, "text": texts[path.stem]})
        for path in folders.list_images(folder, "instance_data_dir")
    ]
    with atomic(folder / METADATA) as half:
        half.write_text("\n".join(rows) + "\n", encoding="utf-8")
