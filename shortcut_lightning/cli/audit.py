"""The verb `audit`: was this picture used to train this model? It trains nothing, so it does not go
through LightningCLI."""

import sys
from pathlib import Path

from shortcut_lightning.audit.audit import Audit
from shortcut_lightning.cli.class_index import class_index, import_named
from shortcut_lightning.cli.config_files import config_files
from shortcut_lightning.cli.engines import add_pool_arguments
from shortcut_lightning.cli.errors import as_user_error
from shortcut_lightning.cli.parser import ShortcutParser
from shortcut_lightning.cli.verbs import PROGRAM
from shortcut_lightning.cluster.pool import open_pool
from shortcut_lightning.files.code import deciding_code
from shortcut_lightning.ranges import CountOrNone
from shortcut_lightning.stopping import Stopped


def audit_parser() -> ShortcutParser:
    """`--config`, `--audit.*`, and where the report goes."""
    parser = ShortcutParser(prog=f"{PROGRAM} audit")
    parser.add_argument("--config", "-c", action="config", help="A file of settings.")
    parser.add_argument(
        "--output",
        type=str,
        default="",
        help="Folder of the report and of what was measured, where a killed audit goes on. "
        "Default: <output_dir>/audit-<name of the config file>.",
    )
    parser.add_argument("--output_dir", type=str, default="runs", help="Where runs are kept.")
    add_pool_arguments(parser)
    parser.add_argument(
        "--max_failures",
        type=CountOrNone,
        default=100,
        help="Of shards, tables and patterns: so many pictures of a set may be unreadable.",
    )
    parser.add_class_arguments(Audit, "audit")
    return parser


def audit(argv: list[str]) -> None:
    """Audits and writes the report.

    Args:
        argv: the command line after the verb.

    Raises:
        UserError: a user's mistake.
    """
    import_named(argv, class_index())
    parser = audit_parser()
    config = parser.parse_args(argv)
    files = config_files(argv)
    name = f"audit-{files[-1].stem}" if files else "audit"
    folder = Path(config.output or Path(config.output_dir) / name)
    try:
        with open_pool(config.engine, config.workers, config.gpus_per_worker) as pool:
            result = parser.instantiate(config).audit.run(
                folder, deciding_code(), pool, config.max_failures
            )
    except Stopped as stopped:
        stopped.kept = f"what was measured is kept in {folder}; the same command goes on"
        raise
    except Exception as error:
        audited = {f"audit.{key}": value for key, value in config.audit.items()}
        if said := as_user_error(error, audited, str(folder)):
            raise said from error
        raise
    sys.stdout.write(f"{result.verdict.text}\n{folder / 'report.html'}\n")
