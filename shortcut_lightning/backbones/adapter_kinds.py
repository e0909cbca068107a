"""What kind of adapter goes where: LoRA, LoHa (arXiv 2108.06098) and LoKr (arXiv 2309.14859), on
attention and, where asked for, on convolutions, with a rank of its own for blocks that a pattern
names. All of them by peft."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig

Kind = Literal["lora", "loha", "lokr"]
_CONFIGS = {"loha": LoHaConfig, "lokr": LoKrConfig}
_RANKS = "model.adapter.rank_pattern"


class Adapter(NamedTuple):
    """An adapter as it is asked for."""

    rank: int
    alpha: int  # its scale is alpha / rank
    dropout: float = 0.0
    dora: bool = False  # decomposed by weight; of LoRA alone
    kind: Kind = "lora"
    convolutions: bool = False  # of the denoiser, beside its attention
    ranks: Mapping[str, int] = {}  # patterns of layers' names -> rank; the first that fits counts
    alphas: Mapping[str, int] = {}  # the same with alphas

    def config(self, settings: Mapping[str, Any], more: Iterable[str] = ()) -> PeftConfig:
        """peft's settings for a network whose usual ones are `settings`; `more` layers join them.

        Raises ValueError for what this kind does not have.
        """
        for pattern in self.ranks:
            compiled(pattern, _RANKS)
        targets = [*settings["target_modules"], *more]
        patterns = {"rank_pattern": dict(self.ranks), "alpha_pattern": dict(self.alphas)}
        if self.kind == "lora":
            return LoraConfig(
                r=self.rank,
                lora_alpha=self.alpha,
                lora_dropout=self.dropout,
                use_dora=self.dora,
                **{**settings, "target_modules": targets},
                **patterns,
            )
        if self.dropout > 0:
            raise ValueError(
                f"model.adapter.dropout is {self.dropout:g}, which model.method '{self.kind}' has "
                "not: set it to 0."
            )
        if self.dora:
            raise ValueError(
                f"model.adapter.dora decomposes a LoRA, and model.method is '{self.kind}': set "
                "model.adapter.dora to false or model.method to 'lora'."
            )
        return _CONFIGS[self.kind](
            r=self.rank, alpha=self.alpha, target_modules=targets, **patterns
        )

    def check_ranks(self, layers: Iterable[str]) -> None:
        """Raises ValueError for a pattern that is none, or that fits none of the adapted layers."""
        layers = list(layers)
        for pattern in self.ranks:
            fits = compiled(pattern, _RANKS)
            if not any(fits.match(layer) for layer in layers):
                raise ValueError(
                    f"model.adapter.rank_pattern: '{pattern}' fits no layer with an adapter; there "
                    f"are {layers[0]} and {len(layers) - 1} more. A pattern fits a whole name or "
                    "its "
                    r"end, so a block is 'up_blocks\.1\..*'."
                )


def compiled(pattern: str, key: str) -> re.Pattern[str]:
    """Of modules' whole names, or of their ends after a dot, as peft reads it; `key` is where it
    was given. Raises ValueError where it is none."""
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except re.error as error:
        raise ValueError(
            f"{key}: '{pattern}' is no pattern ({error.msg}); write "
            r"'up_blocks\.1\..*' for all layers of a block."
        ) from error
