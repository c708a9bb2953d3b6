"""Files that are either whole or not there: written under a temporary name, then renamed."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from todm.errors import TodmError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of the system that more room mends."""


def remedy(error: OSError) -> str:
    """What to do about a file that cannot be written."""
    if error.errno in FULL:
        return "make room, then type the command again (`todm train` with --resume auto)"
    return "choose another folder with --out"


def atomic_write(path: Path | str, content: bytes | str) -> Path:
    """Write `content` to `path` so that a reader, or a crash, never sees half of it.

    Raises:
        TodmError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise TodmError(f"cannot write {path}: {error.strerror}; {remedy(error)}") from error
    return path


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process makes something in `folder` that several would make alike, then keep others waiting.

    Raises:
        OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_json(path: Path | str, value: Any) -> Path:
    """Write `value` as indented JSON, atomically."""
    return atomic_write(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        TodmError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise TodmError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise TodmError(f"{path} is not valid JSON ({error}); it was damaged or edited") from error


def sha256(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where downloads are kept that several runs share: `$TODM_CACHE`, else `~/.cache/todm`."""
    return Path(os.environ.get("TODM_CACHE", Path.home() / ".cache" / "todm"))
