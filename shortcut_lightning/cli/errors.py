"""User errors: what they look like, and which exceptions are one.

The house's rule is `ValueError` for users and `assert` for our own bugs. So a `ValueError` that is
raised on purpose becomes one line without a traceback; an exception that merely happened keeps it.
"""

import difflib
import linecache
import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path

from shortcut_lightning.files.atomic import disk_error
from shortcut_lightning.files.names import shown
from shortcut_lightning.finite import NotFinite

_PACKAGE = Path(__file__).parents[1]


class UserError(Exception):
    """A mistake in what was asked for. Its message is all that the user needs to see."""

    code = 2  # the program's exit code


class MachineError(UserError):
    """What was asked for is right, but a disk or the memory did not hold it, or weights are no
    numbers."""

    code = 1


def is_first_process() -> bool:
    """False in all but one of the processes of a run, whoever started them."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
    return all(os.environ.get(rank, "0") == "0" for rank in ranks)


def notice(text: str) -> None:
    """One line for the user on stderr, from one process only."""
    if is_first_process():
        sys.stderr.write(f"{text}\n")


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """A question that names the allowed word closest to `given`, or nothing."""
    by_folded = {word.lower(): word for word in allowed}
    close = difflib.get_close_matches(given.lower(), by_folded, n=1, cutoff=0.6)
    return f"; did you mean '{by_folded[close[0]]}'?" if close else ""


def no_file(where: str, given: str, pattern: str = "*.yaml", known: Iterable[str] = ()) -> str:
    """That the file `where` names is not there, and the one that may be meant: in the same folder,
    or in configs where that folder is not there either, or of the names that are known."""
    folder = Path(given).parent if Path(given).parent.is_dir() else Path("configs")
    there = sorted(os.fspath(path) for path in folder.glob(pattern))
    kind = "file or preset" if known and not Path(given).suffix else "file"
    return f"{where}: no {kind} '{given}'{did_you_mean(given, [*there, *known])}"


def listed(words: Iterable[str], limit: int = 30) -> str:
    """The words with commas, cut after `limit`."""
    words = list(words)
    return ", ".join(words[:limit]) + (", ..." if len(words) > limit else "")


def as_user_error(
    error: BaseException, config: Mapping[str, object], place: str = ""
) -> UserError | None:
    """What to tell a user, where `error` is a user's mistake or the machine's failure; None for a
    bug.

    Args:
        error: what was raised while classes were built or the verb ran.
        config: key -> value of the run, to name the key that holds a missing path.
        place: where the verb writes, for a full disk that does not say what did not fit.
    """
    message = _message(error, config, place)
    if not message:
        return None
    causes = [error]
    while causes[-1].__cause__:
        causes.append(causes[-1].__cause__)
    failed = any(
        _memory(each) or _of_the_disk(each) or isinstance(each, NotFinite) for each in causes
    )
    return (MachineError if failed else UserError)(message)


def _message(error: BaseException, config: Mapping[str, object], place: str) -> str:
    """For a user; "" for a bug."""
    wrapped = str(error)
    while error.__cause__ and _by_jsonargparse(error):
        error = error.__cause__  # what a constructor raised, wrapped in talk of types
    if isinstance(error, ValueError) and _by_jsonargparse(error):
        # The cause belongs to another alternative of the type; the text has the one that was meant.
        match = re.search(r"given class_path '[\w.]*?(\w+)':\n\s*(.+)", wrapped)
        return f"{match[1]}: {match[2]}" if match else ""
    if told := _memory(error):
        return told
    frames = traceback.extract_tb(error.__traceback__)
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    running = any(frame.name == "_run_stage" for frame in frames)  # Lightning's loops have begun
    if "lightning.fabric.utilities.exceptions.MisconfigurationException" in kinds:
        return _short(error)
    restoring = any(
        frame.name.startswith(("restore", "_restore", "resume_start"))
        and Path(frame.filename).name == "checkpoint_connector.py"
        for frame in frames
    )
    if restoring and not (isinstance(error, ValueError) and _on_purpose(frames)):
        # What a checkpoint of another program or version holds may fail in any way.
        told = f"{type(error).__name__}: {_short(error, 160)}"
        return f"--ckpt_path: '{config.get('ckpt_path')}' does not fit this run ({told})"
    if disk := disk_error(error):
        return _missing_file(disk, config, place)
    if isinstance(error, OSError) and (not running or error.filename):
        return _missing_file(error, config)
    # Lightning says of a trainer's arguments what is wrong with them, by whatever kind comes to it.
    building = any(frame.name == "instantiate_trainer" for frame in frames)
    if building and isinstance(error, OverflowError | MemoryError):
        return _short(error)
    if not _on_purpose(frames):
        return ""
    if isinstance(error, ValueError | ImportError):
        ours = Path(frames[-1].filename).is_relative_to(_PACKAGE)
        return _short(error) if ours or not running else ""
    return _short(error) if building and isinstance(error, TypeError | RuntimeError) else ""


def _by_jsonargparse(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "jsonargparse" in Path(frames[-1].filename).parts


def _on_purpose(frames: traceback.StackSummary) -> bool:
    """True if the innermost frame is at a `raise`; a failure inside C shows another line."""
    last = frames[-1]
    return bool(re.search(r"\braise\b", linecache.getline(last.filename, last.lineno or 0)))


def _memory(error: BaseException) -> str:
    """That there is no more memory, of the machine or of its GPU; "" for anything else."""
    said = _short(error, 160)
    known = ("can't allocate memory", "out of memory", "Storage size calculation overflowed")
    if not isinstance(error, MemoryError) and not any(words in said for words in known):
        return ""
    return (
        f"memory ran out ({said}); what takes less: a smaller data.train_batch_size or "
        "data.resolution, --model.compute.gradient_checkpointing true, "
        "--model.compute.frozen_dtype bf16"
    )


def _of_the_disk(error: BaseException) -> bool:
    """Whether a disk is full, read-only or broken; what may not be touched can be a mistake."""
    disk = disk_error(error)
    return disk is not None and not isinstance(disk, PermissionError)


def _missing_file(error: OSError, config: Mapping[str, object], place: str = "") -> str:
    text = str(error)
    if "huggingface.co" in text or type(error).__module__.startswith(("huggingface_hub", "httpx")):
        return (
            f"{_short(error, 160)}\n  without a model hub use pretrained_model_name_or_path: pocket"
            " (comes with the package) or the path of a diffusers folder"
        )
    if error.filename is None or not error.strerror:
        return f"{error.strerror or _short(error)}{f', in {place}' if place else ''}"
    path = shown(os.fsdecode(error.filename))
    key = _key_of(os.fsdecode(error.filename), config)
    return f"{key}: {error.strerror}: '{path}'" if key else f"{error.strerror}: '{path}'"


def _key_of(path: str, config: Mapping[str, object]) -> str:
    """The key whose value is a path, or, of those that are folders above it, the nearest."""
    parts = Path(os.path.abspath(path)).parts
    known: dict[int, str] = {}
    for key, value in config.items():
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, str) and each and "\0" not in each:
                own = Path(os.path.abspath(os.path.expanduser(each))).parts
                if parts[: len(own)] == own and own != Path.cwd().parts:
                    known.setdefault(len(own), key)
    return known[max(known)].replace(".init_args", "") if known else ""


def _short(error: BaseException, limit: int = 400) -> str:
    """The message on one line, cut at the end of a word."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " ..."
