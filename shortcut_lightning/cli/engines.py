"""The options of verbs that can share their work, where a parser is written by hand."""

from shortcut_lightning.cli.parser import ShortcutParser
from shortcut_lightning.cluster.pool import EngineName, GpuShare
from shortcut_lightning.ranges import Count


def add_pool_arguments(parser: ShortcutParser, workers: str = "Of Ray.") -> None:
    """Who does the work; see `open_pool`. `workers` is what its help says."""
    parser.add_argument(
        "--engine",
        type=EngineName,
        default="local",
        help="`local` is this process; `ray` has workers, here or on a cluster.",
    )
    parser.add_argument("--workers", type=Count, default=1, help=workers)
    parser.add_argument(
        "--gpus_per_worker",
        type=GpuShare,
        default=0.0,
        help="Share of a GPU that each takes, such as 0.5; 0 works on the CPU.",
    )
