"""What a run will take in memory, told before its model is downloaded or loaded."""

from dataclasses import fields
from typing import Any

LEAST = 0.1  # billions of weights; nobody counts memory below


def told(config: Any) -> str:
    """A line for the settings of `fit`; "" for small models, and where nothing can be said."""
    from shortcut_lightning.backbones import memory
    from shortcut_lightning.modules.settings import KEYS
    from shortcut_lightning.pocket import BUILT_IN

    given: dict[str, Any] = {}
    for part in ("model", "data"):
        settings = _plain((config.get(part) or {}).get("init_args"))
        if subjects := settings.get("subjects"):  # of which a batch has as many as of one
            settings = _plain(next(iter(_plain(subjects).values())).get("init_args"))
        given |= settings
    for name, key in KEYS.items():
        group, _, leaf = key.partition(".")
        if leaf in (given.get(group) or {}):
            given[name] = given[group][leaf]
    path = str(given.get("pretrained_model_name_or_path") or "")
    if not path or path in BUILT_IN:
        return ""
    given |= _sharing(config.trainer)
    names = {each.name for each in fields(memory.Training)} & given.keys()
    half = "16" in str(config.trainer.precision or "32")
    training = memory.Training(**{name: given[name] for name in names}, half=half)
    try:
        found = memory.budget(path, training, given.get("revision") or None)
    except (OSError, ValueError):
        return ""  # loading says what is wrong with it
    return f"memory: {found}" if found and found.parameters >= LEAST else ""


def _sharing(trainer: Any) -> dict[str, Any]:
    """What FullySharded, where it is given, has of the denoiser in how many processes."""
    strategy = trainer.get("strategy")
    path = strategy if isinstance(strategy, str) else (strategy or {}).get("class_path", "")
    if path.split(".")[-1] != "FullySharded":
        return {}
    settings = {} if isinstance(strategy, str) else _plain(strategy.get("init_args"))
    return {"processes": _processes(trainer), "offload": bool(settings.get("offload"))}


def _processes(trainer: Any) -> int:
    import torch

    devices = trainer.get("devices")
    if isinstance(devices, list):
        devices = len(devices)
    known = str(devices).isdecimal()
    count = int(devices) if known else max(torch.cuda.device_count(), 1)
    return count * int(trainer.get("num_nodes") or 1)


def _plain(settings: Any) -> dict[str, Any]:
    """Groups as dictionaries: a Namespace's own keys are those of its leaves, with dots."""
    return dict(settings.as_dict() if hasattr(settings, "as_dict") else settings or {})
