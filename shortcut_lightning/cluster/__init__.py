"""Work on many pictures by several processes and machines: in one process by default, by Ray where
it is asked for.

It knows neither models nor verbs. Whoever has work to share says what is done to a part of it
(`Work`) and hands the parts to a `Pool`.
"""

from shortcut_lightning.cluster.pool import InProcess, Pool, Work, open_pool

__all__ = ["InProcess", "Pool", "Work", "open_pool"]
