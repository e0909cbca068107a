"""Pictures by the million: tar shards as WebDataset writes them, Parquet with the pictures' bytes,
or files by a pattern; on a local disk or at any address that fsspec opens.

A source is cut into parts, which workers read by themselves. Only bytes and texts are taken from a
file: nothing in it is unpickled.
"""

import glob
import hashlib
import json
import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

import fsspec

from shortcut_lightning.cluster.pool import INSTALL
from shortcut_lightning.files.contents import METADATA
from shortcut_lightning.files.folders import read_rows
from shortcut_lightning.files.images import SUFFIXES

TAR, PARQUET = (".tar", ".tar.gz", ".tgz"), (".parquet",)
FILES_A_PART = 256
_IMAGE = ("image", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content")
_CAPTION = ("caption", "text", "txt", "prompt")
_NAME = ("name", "file_name", "key", "__key__", "path", "url", "id")
# By what file systems' listings say that a file is another, surest first.
_MARKS = (
    "ETag", "etag", "md5Hash", "blob_id", "mtime", "LastModified", "last_modified",
    "Last-Modified", "modified", "modify", "modificationTime", "updated", "date_time", "created",
)  # fmt: skip

Facts = dict[str, Any]  # of a file, as its file system lists it


class Part(NamedTuple):
    """Some rows of a source: a shard, a row group of a Parquet file, or some files."""

    number: int
    kind: Literal["tar", "parquet", "files"]
    address: str  # of the shard or table
    group: int = 0  # of a Parquet file
    files: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # of the files, below the folder that all of the source share
    twins: tuple[str, ...] = ()  # those of them that another one equals but for its ending
    state: str = ""  # a hash of sizes and times of what it is read from, captions included

    @property
    def label(self) -> str:
        """Names the part in outputs and messages; no two are alike."""
        stem = PurePosixPath(self.address).name.split(".")[0]
        return f"{self.number:06d}-{stem}"


class Row(NamedTuple):
    """A picture as it is stored, with its caption, "" where it has none."""

    number: int  # in its part
    name: str
    caption: str
    data: bytes
    twin: bool = False  # whether another row is called alike but for its ending


class Broken(NamedTuple):
    """Why the rest of a part, or one row, cannot be read."""

    name: str
    reason: str


def is_stream(source: str) -> bool:
    """Whether these are shards, tables or a pattern, rather than a folder of pictures."""
    if any(sign in source for sign in ("*", "?", "://")) or source.endswith((*TAR, *PARQUET)):
        return True
    if not source or ":" in source:
        return False
    files, _ = fsspec.core.url_to_fs(source)
    if not files.isdir(source):
        return False
    names = [PurePosixPath(path).name.lower() for path in files.ls(source, detail=False)]
    return any(name.endswith((*TAR, *PARQUET)) for name in names) and not any(
        name.endswith(SUFFIXES) for name in names
    )


def parts_of(source: str, key: str) -> list[Part]:
    """The parts of a source in order of their names. `key` is the config key it came from.

    Raises ValueError where nothing is found, or Parquet is met without PyArrow.
    """
    try:
        files, path = fsspec.core.url_to_fs(source)
        found, beside = _listed(files, path)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"{key} is '{source}', which cannot be opened ({error}).") from error
    parts: list[Part] = []
    for path in (path for path in found if path.endswith((*TAR, *PARQUET))):
        address, state = files.unstrip_protocol(path), _state([_mark(files, path, found)])
        groups = _groups(address) if address.endswith(PARQUET) else 1
        kind: Literal["tar", "parquet"] = "parquet" if address.endswith(PARQUET) else "tar"
        parts += [Part(len(parts) + n, kind, address, n, state=state) for n in range(groups)]
    pictures = [path for path in found if path.lower().endswith(SUFFIXES)]
    names = _below_all(pictures)
    stems = Counter(_stem(name) for name in names)
    for start in range(0, len(pictures), FILES_A_PART):
        paths, own = (each[start : start + FILES_A_PART] for each in (pictures, names))
        some = tuple(files.unstrip_protocol(path) for path in paths)
        twins = tuple(name for name in own if stems[_stem(name)] > 1)
        state = _state(_marks(files, paths, found, beside))
        parts.append(Part(len(parts), "files", some[0], 0, some, tuple(own), twins, state))
    if not parts:
        raise ValueError(
            f"No pictures: looked for {', '.join((*TAR, *PARQUET))} and pictures at '{source}' "
            f"({key})."
        )
    return parts


def _below_all(paths: Sequence[str]) -> list[str]:
    """Paths below the folder that they share."""
    if not paths:
        return []
    shared = posixpath.commonpath([path.rpartition("/")[0] or "/" for path in paths])
    return [posixpath.relpath(path, shared) for path in paths]


def _stem(name: str) -> str:
    return name.removesuffix(PurePosixPath(name).suffix)


def fingerprint(parts: Sequence[Part]) -> str:
    """A hash of what is read: it changes with the parts, and with a file that is another under the
    same name."""
    return hashlib.sha256(json.dumps([list(part) for part in parts]).encode()).hexdigest()[:16]


def _listed(files: Any, path: str) -> tuple[dict[str, Facts], dict[str, Facts]]:
    """What a source names, in order, and what lies in its folders beside it: by path, each from one
    listing. What there is by that name is meant by it: brackets in a name are no pattern."""
    shard = path.endswith((*TAR, *PARQUET)) and files.isfile(path)
    if not shard and files.isdir(path):
        found = {facts["name"]: facts for facts in files.ls(path, detail=True)}
        return dict(sorted(found.items())), found
    if files.exists(path):
        near = [_sidecar(path), f"{path.rpartition('/')[0]}/{METADATA}"]
        beside = {each: files.info(each) for each in near if files.exists(each)}
        return {path: files.info(path)}, beside
    folder = re.split(r"[*?]", path, maxsplit=1)[0].rpartition("/")[0]
    if "[" in folder and files.isdir(folder):
        path = glob.escape(folder) + path.removeprefix(folder)
    found = dict(sorted(files.glob(path, detail=True).items()))
    around = path.rpartition("/")[0] + "/*"
    if around == path or not any(each.lower().endswith(SUFFIXES) for each in found):
        return found, found
    return found, found | files.glob(around, detail=True)


def _marks(
    files: Any, paths: Sequence[str], found: Mapping[str, Facts], beside: Mapping[str, Facts]
) -> Iterator[str]:
    """Of pictures and what is read as their captions."""
    for path in paths:
        yield _mark(files, path, found)
        if (caption := _sidecar(path)) in beside:
            yield _mark(files, caption, beside)
    for folder in sorted({path.rpartition("/")[0] for path in paths}):
        if (captions := f"{folder}/{METADATA}") in beside:
            yield _mark(files, captions, beside)


def _mark(files: Any, path: str, listed: Mapping[str, Facts]) -> str:
    """Name, size and time, or a hash where the file system knows one."""
    facts = listed[path]
    mark = _first(facts)
    # The time of a link is not that of its file; and a web server tells nothing but when asked.
    if facts.get("islink") or (mark is None and facts.get("size") is None):
        try:
            facts = files.info(path)
        except OSError:  # what cannot be read is told when its turn comes
            facts = {}
        mark = _first(facts)
    return f"{path} {facts.get('size')} {mark}"


def _first(facts: Facts) -> Any:
    return next((facts[name] for name in _MARKS if facts.get(name) is not None), None)


def _state(marks: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(marks).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _sidecar(path: str) -> str:
    """Where the caption of a picture would be."""
    return _stem(path) + ".txt"


def rows_of(part: Part) -> Iterator[Row | Broken]:
    """The rows of a part, in order."""
    match part.kind:
        case "tar":
            yield from _tar(part)
        case "parquet":
            yield from _parquet(part)
        case "files":
            yield from _files(part)


class _Strict(tarfile.TarInfo):
    """Python's tarfile takes a damaged header, and an end without its mark, for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Strict":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"damaged at byte {archive.offset}: {error}") from error


def _tar(part: Part) -> Iterator[Row | Broken]:
    """Neighbouring members of one name up to the first dot are one sample, as in WebDataset."""
    sample: dict[str, bytes] = {}
    key, number = "", 0
    try:
        with (
            fsspec.open(part.address, "rb") as file,
            tarfile.open(fileobj=file, mode="r|*", tarinfo=_Strict) as archive,
        ):
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                if not member.isfile() or not stem:
                    continue
                own = f"{folder}/{stem}" if folder else stem
                if own != key and sample:
                    if row := _sample(number, key, sample):
                        yield row
                        number += 1
                    sample = {}
                key = own
                opened = archive.extractfile(member)
                sample[suffix.lower()] = opened.read() if opened else b""
        if row := _sample(number, key, sample):
            yield row
    except (OSError, EOFError, tarfile.TarError) as error:  # gzip's and zlib's are among them
        yield Broken(part.label, f"the shard cannot be read further ({error})")


def _sample(number: int, key: str, members: dict[str, bytes]) -> Row | None:
    suffix = next((each for each in members if f".{each.rpartition('.')[2]}" in SUFFIXES), "")
    if not suffix:
        return None
    caption = members.get("txt", b"").decode("utf-8", "replace").strip()
    if not caption and "json" in members:
        try:
            facts = json.loads(members["json"])
            caption = next((str(facts[k]) for k in _CAPTION if facts.get(k)), "")
        except (ValueError, AttributeError):
            caption = ""
    return Row(number, f"{key}.{suffix}", caption, members[suffix])


def _files(part: Part) -> Iterator[Row | Broken]:
    rows = dict[str, Mapping[str, str]]()  # of `metadata.jsonl`, by folder
    for number, (address, shown) in enumerate(zip(part.files, part.names, strict=True)):
        folder, _, name = address.rpartition("/")
        try:
            data = _bytes(address)
            if folder not in rows:
                rows[folder] = _metadata(f"{folder}/{METADATA}")
            caption = rows[folder].get(name) or _text(_sidecar(address))
        except (OSError, ValueError) as error:
            yield Broken(shown, f"cannot be opened ({error})")
            continue
        yield Row(number, shown, " ".join(caption.split()), data, shown in part.twins)


def _bytes(address: str) -> bytes:
    with fsspec.open(address, "rb") as file:
        return bytes(file.read())


def _text(address: str) -> str:
    """ "" where there is no such file."""
    files, path = fsspec.core.url_to_fs(address)
    return str(files.cat_file(path).decode("utf-8", "replace")) if files.exists(path) else ""


def _metadata(address: str) -> Mapping[str, str]:
    """File name -> caption. Raises ValueError for a bad row."""
    files, path = fsspec.core.url_to_fs(address)
    if not files.exists(path):
        return {}
    return _rows(address, _mark(files, path, {path: files.info(path)}))


@lru_cache(maxsize=1)  # the parts of a folder come one after the other
def _rows(address: str, mark: str) -> Mapping[str, str]:
    """The rows while the file has this mark."""
    return read_rows(_bytes(address).decode("utf-8-sig"), address)


def arrow() -> Any:
    """PyArrow's Parquet. Raises ValueError where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(f"Parquet needs PyArrow ({error}): {INSTALL}") from error
    return pyarrow.parquet


def _groups(address: str) -> int:
    try:
        with fsspec.open(address, "rb") as file:
            return max(1, int(arrow().ParquetFile(file).num_row_groups))
    except (OSError, TypeError) as error:  # PyArrow's own are of these kinds and ValueError
        raise ValueError(f"{address} is no Parquet file ({error}).") from error
    except ValueError as error:
        if "PyArrow" in str(error):
            raise
        return 1  # damaged: its part says so


def _parquet(part: Part) -> Iterator[Row | Broken]:
    parquet = arrow()
    try:
        with fsspec.open(part.address, "rb") as file:
            opened = parquet.ParquetFile(file)
            if not opened.num_row_groups:
                return
            names = opened.schema_arrow.names
            image, caption, name = (_column(names, of) for of in (_IMAGE, _CAPTION, _NAME))
            if not image:
                yield Broken(part.label, f"has no column {' or '.join(_IMAGE)}; has {names}")
                return
            wanted = [each for each in (image, caption, name) if each]
            table = opened.read_row_group(part.group, columns=wanted)
    except (OSError, ValueError, TypeError) as error:
        yield Broken(part.label, f"the table cannot be read ({error})")
        return
    column = table.column(image)
    import pyarrow.types as kinds

    if kinds.is_struct(column.type):
        column = table.column(image).combine_chunks().field("bytes")
    if not (kinds.is_binary(column.type) or kinds.is_large_binary(column.type)):
        yield Broken(part.label, f"column {image} holds {column.type}, not bytes")
        return
    for number in range(table.num_rows):
        said = str(table.column(caption)[number].as_py() or "") if caption else ""
        called = str(table.column(name)[number].as_py()) if name else f"row {number}"
        data = column[number].as_py()
        if data is None:
            yield Broken(called, "has no bytes")
        else:
            yield Row(number, called, said.strip(), data)


def _column(names: list[str], of: tuple[str, ...]) -> str:
    return next((name for name in of if name in names), "")
