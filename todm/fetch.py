"""Public data sets: a local folder, `$TODM_DATA`, or a download from their home, always with the pinned checksums."""

import hashlib
import os
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from todm.errors import TodmError
from todm.files import atomic_write, sha256

TIMEOUT = 30.0
"""Seconds to wait for an answer from the network."""


@dataclass(frozen=True)
class Source:
    """A data set as its home serves it."""

    name: str
    """Folder in `$TODM_DATA` and in the cache."""
    home: str
    """Address of the folder that holds the files, pinned to a commit or version."""
    files: Mapping[str, str]
    """File name -> SHA-256."""

    def fetch(self, folder: str | Path | None, cache: Path) -> Path:
        """The folder that holds all files: `folder`, `$TODM_DATA/name`, or the cache, filled from the home if need be.

        Raises:
            TodmError: a file is missing from the folder given, has another checksum, or cannot be downloaded.
        """
        shared = Path(os.environ["TODM_DATA"], self.name) if "TODM_DATA" in os.environ else None
        if folder is not None or (shared is not None and shared.is_dir()):
            chosen = Path(folder) if folder is not None else shared
            assert chosen is not None
            for name in self.files:
                if not (chosen / name).is_file():
                    raise TodmError(f"{chosen} lacks {name}: name a folder that holds {', '.join(self.files)}")
                self._check(name, sha256(chosen / name), str(chosen))
            return chosen
        for name in self.files:
            if not (cache / self.name / name).is_file():
                self._download(name, cache / self.name / name)
        return cache / self.name

    def _download(self, name: str, path: Path) -> None:
        address = f"{self.home}/{name}"
        print(f"{self.name}: downloading {address}", file=sys.stderr)
        try:
            with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
                content: bytes = answer.read()
        except OSError as error:
            raise TodmError(
                f"cannot download {address} ({error}); give the folder that holds it with --data"
            ) from error
        self._check(name, hashlib.sha256(content).hexdigest(), address)
        atomic_write(path, content)

    def _check(self, name: str, found: str, where: str) -> None:
        if found != self.files[name]:
            raise TodmError(
                f"{name} of {where} has SHA-256 {found[:12]}..., not the pinned one; get it from {self.home}"
            )
