"""The command line: Lightning's verbs, one config for all of them."""

from lightning.pytorch.cli import LightningCLI


class ShortcutCLI(LightningCLI):
    """LightningCLI whose classes come from YAML class paths."""

    def _parse_ckpt_path(self) -> None:
        """Lightning lets a checkpoint's hyper-parameters override config and command line; here
        what the user typed wins, also when resuming."""


def main(args: list[str] | None = None) -> None:
    """Runs one verb; `args` stands for `sys.argv[1:]`."""
    ShortcutCLI(
        args=args,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"parser_mode": "omegaconf"},
    )
