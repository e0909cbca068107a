"""Quality of single pictures by pyiqa's networks: LIQE, CLIP-IQA, MUSIQ, NIQE and many more.

pyiqa is under the PolyForm Noncommercial licence, so it is neither a dependency nor an extra of
this package: whoever may use it installs it.
"""

from typing import Any

import torch
from torch import Tensor

from shortcut_lightning.faces import needed

INSTALL = "pip install pyiqa (licence: PolyForm Noncommercial 1.0.0), or leave this metric out"


def load(name: str) -> Any:
    """pyiqa's metric of that name. Raises ValueError without pyiqa, or where its weights, which it
    fetches at first use, cannot be had."""
    pyiqa = needed("pyiqa", f"The quality score '{name}'", INSTALL)
    try:
        return pyiqa.create_metric(name)
    except Exception as error:  # it raises whatever its downloads and readers raise
        raise ValueError(
            f"pyiqa cannot make the quality score '{name}' ({str(error).strip()[:200]}); "
            "pyiqa.list_models() has the names, and weights must be reachable or cached."
        ) from error


@torch.no_grad()
def scores(metric: Any, images: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> (N,) float32 on the CPU, one picture at a time."""
    rows = [torch.as_tensor(metric(image[None])).float().reshape(-1)[:1] for image in images]
    return torch.cat(rows).cpu()
