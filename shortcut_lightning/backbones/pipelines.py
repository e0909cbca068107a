"""Folders and hub ids of diffusers, loaded whole: every part that the pipeline needs, every tensor.

The library itself passes over a missing folder of a tokenizer, and over missing layers.
"""

import inspect
import json
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from shortcut_lightning import weights
from shortcut_lightning.files.reading import read_text, refuse_pipes


def load(
    kind: Any,
    source: str,
    key: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    dtypes: Mapping[str, torch.dtype] = {},
    options: Mapping[str, Any] = {},
    nf4: str = "",
) -> Any:
    """A diffusers pipeline.

    Args:
        kind: Its class.
        source: Folder or hub id.
        key: The setting that named it.
        revision: Branch, tag or commit on the hub.
        variant: Weight files to prefer; a part without such takes the plain ones.
        dtypes: Of networks by part; float32 where a part is not named.
        options: Further arguments of the pipeline.
        nf4: The part whose linear layers are stored in 4 bits, if any.

    Raises ValueError that names the part or the tensors that are missing, unknown or not finite.
    """
    # Bars for reading local files only; a hub download keeps its own.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    with weights.one_line():
        folder = Path(source)
        refuse_pipes(folder)
        if not folder.is_dir():
            download = kind.download
            folder = Path(
                download(
                    source, revision=revision, variant=variant, use_safetensors=True, **options
                )
            )
        classes = _classes(kind, folder, options)
        if variant:
            _refuse_variant(variant, folder, key)
        networks = {
            part: _network(
                each,
                folder / part,
                key,
                variant,
                dtypes.get(part, torch.float32),
                _four_bits() if part == nf4 else None,
            )
            for part, each in classes.items()
            if issubclass(each, nn.Module)
        }
        pipeline = kind.from_pretrained(folder, **networks, **options)
    for part in classes:
        if part.startswith("tokenizer"):
            encoder = networks[part.replace("tokenizer", "text_encoder")]
            check_tokenizer(getattr(pipeline, part), encoder, f"{source}/{part}")
    return pipeline


def index(path: Path) -> dict[str, Any]:
    """What `model_index.json` says; ValueError where it is no such file."""
    try:
        found = json.loads(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("_class_name"), str):
        raise ValueError(f"{path} names no pipeline (_class_name)")
    return found


def _classes(kind: Any, folder: Path, options: Mapping[str, Any]) -> dict[str, type]:
    """The class of each part that the pipeline cannot do without."""
    entries = index(folder / "model_index.json")
    needed = [
        name
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if parameter.default is inspect.Parameter.empty and name not in {"self", *options}
    ]
    classes = {}
    for part in needed:
        entry = entries.get(part)
        if not (isinstance(entry, list) and len(entry) == 2 and all(map(bool, entry))):
            raise ValueError(f"its model_index.json names no {part}")
        if not (folder / part).is_dir():
            raise ValueError(f"it is incomplete: there is no {part}/ in it")
        libraries = {"diffusers": diffusers, "transformers": transformers}
        found = getattr(libraries.get(str(entry[0])), str(entry[1]), None)
        if not isinstance(found, type):
            raise ValueError(f"its {part} is a {entry[0]}.{entry[1]}, which is not known here")
        classes[part] = found
    return classes


def _refuse_variant(variant: str, folder: Path, key: str) -> None:
    """Raises ValueError where no part of a model has weights of that variant."""
    names = [path.name for path in folder.glob("*/*.safetensors")]
    found = {
        match[1] for name in names if (match := re.search(r"\.(\w+)(-\d+-of-\d+)?\.\w+$", name))
    }
    if variant not in found:
        there = f"; there are: {', '.join(sorted(found))}" if found else ", nor of any other"
        named = f"{key.rpartition('.')[0]}.variant".lstrip(".")
        raise ValueError(f"it has no weights of the variant '{variant}' ({named}){there}")


def _four_bits() -> Any:
    """diffusers' own quantisation to NF4 (arXiv 2305.14314), scales quantised as well.

    Raises WeightsError where bitsandbytes or a GPU is missing.
    """
    if find_spec("bitsandbytes") is None:
        raise weights.WeightsError(
            "model.compute.frozen_dtype is nf4, which needs bitsandbytes: pip install "
            "'shortcut-lightning[gpu]', or set it to bf16."
        )
    if not torch.accelerator.is_available():
        raise weights.WeightsError(
            "model.compute.frozen_dtype is nf4, and diffusers puts weights in 4 bits on a GPU "
            "only, of which none is here: set it to bf16."
        )
    return diffusers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _network(
    kind: Any,
    folder: Path,
    key: str,
    variant: str | None,
    dtype: torch.dtype,
    quantization: Any = None,
) -> nn.Module:
    """A network from its own folder."""
    has_variant = bool(variant) and any(folder.glob(f"*.{variant}.*"))
    name = "torch_dtype" if kind.__module__.startswith("diffusers") else "dtype"
    arguments = {
        name: dtype,
        "variant": variant if has_variant else None,
        "use_safetensors": True,
    }
    if quantization is not None:
        arguments["quantization_config"] = quantization
    network: nn.Module = weights.load(kind, str(folder), key, folder.name, arguments, strict=True)
    return network


def check_tokenizer(tokenizer: Any, text_encoder: Any, source: str) -> None:
    """Raises ValueError where the words are not those that the text encoder has a table of."""
    rows, words = text_encoder.config.get_text_config().vocab_size, tokenizer.get_vocab()
    beyond = max(words.values(), default=0) >= rows
    if beyond or len(words) < rows / 2:
        raise ValueError(
            f"the tokenizer '{source}' has {len(words)} words, and the text encoder a table of "
            f"{rows}: it belongs to another model, or its files are missing"
        )
