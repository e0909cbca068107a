"""Whether a checkpoint is of the same pictures, prompts and model as the run that would resume it.

Steps, devices, learning rates, loss weights, loggers, callbacks and whatever is only sampled or
measured may change on the way; what is learned, and from what, may not.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn

from shortcut_lightning.backbones.base import is_adapter
from shortcut_lightning.cli.errors import UserError
from shortcut_lightning.cli.old_names import MOVED
from shortcut_lightning.files.cache import describe
from shortcut_lightning.files.contents import METADATA, look_into
from shortcut_lightning.files.images import SUFFIXES
from shortcut_lightning.files.reading import read_bytes

Facts = dict[str, str]  # key of the configuration -> a short text, or a hash

_PER_TENSOR = 16  # numbers looked at; two trainings differ in nearly all
_SHOWN = 60  # characters of a text
_BELOW = "data.instance_data_dir (subfolders)"  # a key of its own: older checkpoints know of none
_SUBJECTS, _OF_EACH = "data.subjects.", ".instance_prompt"


def facts(model: LightningModule, data: LightningDataModule | None) -> Facts:
    """What a run learns, and from what. To be asked before it has learned anything."""
    from shortcut_lightning.data import PersonalizationDataModule, SeveralSubjects

    found: Facts = {}
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, nn.Module):
        found["model.compute.frozen_dtype"] = str(model.hparams.get("frozen_dtype", ""))
        found["model.prompt_chunks"] = str(model.hparams.get("prompt_chunks", 1))
        found["model.pretrained_model_name_or_path"] = _weights(backbone)
    if isinstance(data, PersonalizationDataModule):
        found |= _of_data(data)
    if isinstance(data, SeveralSubjects):
        for name, its in data.subjects.items():
            found |= {
                key.replace("data.", f"data.subjects.{name}."): value
                for key, value in _of_data(its).items()
            }
    return found


def _of_data(data: Any) -> Facts:
    prompts = data.prompts
    found = {
        "data.instance_prompt": prompts.instance_prompt,
        "data.instance_data_dir": _pictures(data.instance_data_dir, data.use_captions),
        _BELOW: _pictures_below(data.instance_data_dir, data.use_captions, data.recursive),
        "data.attack": _hash(describe(data.attack)),
        "data.contamination": _hash(describe(data.contamination)),
        "data.purifiers": _hash(describe(data.purifiers)),
        "data.erasing": _hash(_learned(data.erasing)),
        "data.decoupling": _hash(describe(data.decoupling)),
        "data.resolution": str(data.resolution),
        "data.bucketing": str(data.training.bucket_ratio if data.bucketing else 0),
        "data.attack_share": str(data.attack_share),
        "data.captions": _hash(describe(data.captions)),
        "data.training.picture_repeats": _hash(data.training.picture_repeats),
        "data.training.copies": _hash(describe(data.training.copies)),
        "data.training.agreement": str(data.training.agreement),
        "data.with_prior_preservation": str(data.with_prior_preservation),
    }
    if data.with_prior_preservation:
        found |= {
            "data.class_prompt": prompts.class_prompt,
            "data.class_data_dir": _class_pictures(data.class_data_dir),
            "data.num_class_images": str(data.num_class_images),
            "data.noisy_class_images": _hash(describe(data.noisy_class_images)),
        }
    return found


def _learned(erasing: Any) -> Any:
    """Its settings but for one that only sampling has, which older checkpoints know nothing of."""
    kind, settings = describe(erasing)
    return [kind, {name: value for name, value in settings.items() if name != "safety"}]


def refuse_other(checkpoint: str, given: str, now: Facts) -> None:
    """Raises UserError where the checkpoint, which the user gave as `given`, is of another run."""
    differing = _differing(noted(checkpoint), now)
    if differing:
        raise UserError(
            f"--ckpt_path {given}: {checkpoint} was trained with another {' and '.join(differing)}."
            " Give --name NEW and no --ckpt_path for a run of its own, or --resume_other true to go"
            " on with it all the same"
        )


def noted(checkpoint: str) -> Facts:
    """What a checkpoint says about its run; nothing where it is older than such notes, or where it
    cannot be read, which whoever resumes from it will tell."""
    if not Path(checkpoint).is_file():
        return {}
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        facts: Facts = dict(saved["callbacks"]["ConfigWins"]["facts"])
        return {MOVED.get(key, key): fact for key, fact in facts.items()}
    except Exception:  # torch.load raises a new kind for each way a file can be damaged
        return {}


def _differing(then: Facts, now: Facts) -> list[str]:
    """What is not as it was; an older checkpoint knows less, and is asked for no more."""
    names, others = _subjects(then), _subjects(now)
    gone = tuple(f"{_SUBJECTS}{name}." for name in names - others)
    found = [
        _shown(key, fact, now.get(key, ""))
        for key, fact in then.items()
        if now.get(key, "") != fact and not key.startswith(gone)
    ]
    if names and names != others:
        was, are = (", ".join(sorted(each)) or "none" for each in (names, others))
        found.append(f"data.subjects ({was}, now {are})")
    return found


def _subjects(found: Facts) -> set[str]:
    """The names of several subjects; nothing of a single one's data."""
    of_each = [key for key in found if key.startswith(_SUBJECTS) and key.endswith(_OF_EACH)]
    return {key.removeprefix(_SUBJECTS).removesuffix(_OF_EACH) for key in of_each}


def _shown(key: str, then: str, now: str) -> str:
    if not key.endswith(("prompt", "dtype", "resolution")):
        return key
    return f"{key} ({then[:_SHOWN]!r}, now {now[:_SHOWN]!r})"


def _weights(network: nn.Module) -> str:
    """A hash of some numbers of each pretrained tensor; adapters and new words start by chance."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if is_adapter(name) or name.endswith("token_embedding.rows"):
            continue
        flat = tensor.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // _PER_TENSOR)].cpu().contiguous()
        digest.update(f"{name.replace('.base_layer', '')} {list(tensor.shape)}".encode())
        digest.update(some.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _pictures(source: str, captions: bool) -> str:
    """A folder's files by content, wherever it lies; a generated subject by its name."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return source
    kinds = {*SUFFIXES, *((".txt", ".jsonl") if captions else ())}
    return _contents(folder, [f for f in sorted(folder.iterdir()) if f.suffix.lower() in kinds])


def _pictures_below(source: str, captions: bool, recursive: bool) -> str:
    """What `data.recursive` adds to them, by place and content; empty where it is off."""
    folder = Path(source).expanduser()
    if not recursive or not folder.is_dir():
        return ""
    files = [path for path in look_into(folder, recursive).pictures if path.parent != folder]
    if captions:
        files += [path.with_suffix(".txt") for path in files]
        files += sorted({path.parent / METADATA for path in files})
    return _contents(folder, [file for file in files if file.is_file()])


def _class_pictures(source: str) -> str:
    """What the user put into a folder of class images; the others follow from prompt and model."""
    from shortcut_lightning.data.class_images import by_user

    folder = Path(source).expanduser()
    found = look_into(folder, None).pictures if source and folder.is_dir() else []
    return _contents(folder, by_user(found))


def _contents(folder: Path, files: Sequence[Path]) -> str:
    names = [file.relative_to(folder).as_posix() for file in files]
    hashes = [hashlib.sha256(read_bytes(file)).hexdigest() for file in files]
    return _hash([list(each) for each in zip(names, hashes, strict=True)])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
