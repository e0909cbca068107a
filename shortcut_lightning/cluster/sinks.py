"""Where results of a part go: whole files under the part's own name, so that a part that is done
again replaces what it wrote, and each row is there once."""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import fsspec

from shortcut_lightning.cluster.sources import arrow
from shortcut_lightning.files.atomic import atomic

DONE = "parts"  # folder with what is known of finished parts


class Copy(NamedTuple):
    """A picture that was made, encoded, with its name and caption."""

    name: str
    data: bytes
    caption: str = ""


class Output:
    """A folder, on a local disk or at an address that fsspec opens.

    Args:
        address: Where it is.
        kind: `parquet` writes rows of plain types; `shards` pictures as tar files, `files` each as
            a file.
    """

    def __init__(self, address: str, kind: Literal["parquet", "shards", "files"]) -> None:
        self.address, self.kind = address.rstrip("/"), kind

    def write(self, label: str, results: Sequence[Any]) -> None:
        """All that came of a part: rows (mappings) or `Copy`s."""
        if self.kind == "parquet":
            import pyarrow

            with self._file(f"{label}.parquet") as half:
                arrow().write_table(pyarrow.Table.from_pylist(list(results)), half)
        elif self.kind == "shards":
            with self._file(f"{label}.tar") as half, tarfile.open(half, "w") as archive:
                used: set[str] = set()
                for copy in results:
                    place = _unused(PurePosixPath(copy.name), used)
                    _add(archive, str(place), copy.data)
                    if copy.caption:
                        _add(archive, str(place.with_suffix(".txt")), copy.caption.encode())
        else:
            for copy in results:
                with self._file(copy.name) as half:
                    half.write_bytes(copy.data)

    def finish(self, label: str, facts: Any) -> None:
        """Notes that a part is whole, and what is to be known of it."""
        with self._file(f"{DONE}/{label}.json") as half:
            half.write_text(json.dumps(facts), "utf-8")

    def finished(self) -> dict[str, Any]:
        """What `finish` noted, by part; without notes that cannot be read."""
        files, root = fsspec.core.url_to_fs(self.address)
        found = dict[str, Any]()
        try:  # no pattern: the names above may have brackets
            notes = files.ls(f"{root}/{DONE}", detail=False)
        except FileNotFoundError:
            return found
        for path in sorted(path for path in notes if path.endswith(".json")):
            try:
                found[PurePosixPath(path).stem] = json.loads(files.cat_file(path))
            except ValueError:
                continue
        return found

    def note(self, name: str, facts: Any) -> None:
        """Writes plain types as `name`."""
        with self._file(name) as half:
            half.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")

    def noted(self, name: str) -> Any:
        """What `note` wrote; None where there is nothing."""
        files, root = fsspec.core.url_to_fs(self.address)
        try:
            return json.loads(files.cat_file(f"{root}/{name}"))
        except (OSError, ValueError):
            return None

    def holds_others(self) -> bool:
        """Whether anything lies there."""
        files, root = fsspec.core.url_to_fs(self.address)
        return bool(files.exists(root) and files.ls(root, detail=False))

    def journals(self) -> Path | None:
        """A folder for journals; None where the output is not on a disk."""
        files, root = fsspec.core.url_to_fs(self.address)
        return Path(root) / DONE if "file" in files.protocol else None

    @contextmanager
    def _file(self, name: str) -> Iterator[Path]:
        files, root = fsspec.core.url_to_fs(self.address)
        if "file" in files.protocol:
            path = Path(root) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as half:
                yield half
            return
        with TemporaryDirectory() as folder:  # an object appears as a whole where there is no disk
            half = Path(folder) / "half"
            yield half
            files.put_file(str(half), f"{root}/{name}")


def _unused(place: PurePosixPath, used: set[str]) -> PurePosixPath:
    """The place, or one beside it where a sample of its name was, as in a tar with one twice."""
    wanted, number = place, 1
    while str(wanted.with_suffix("")) in used:
        number += 1
        wanted = place.with_stem(f"{place.stem}-{number}")
    used.add(str(wanted.with_suffix("")))
    return wanted


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
