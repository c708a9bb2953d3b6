"""A file is whole or not there, and what goes wrong is one line."""

import hashlib
import os
import threading

import pytest

from todm.errors import TodmError
from todm.files import atomic_write, read_json, sha256, write_json


def test_a_file_is_written_with_its_folders(tmp_path):
    path = atomic_write(tmp_path / "a" / "b" / "c.txt", "ä\n")
    assert path.read_bytes() == "ä\n".encode()
    assert atomic_write(path, b"\x00\xff").read_bytes() == b"\x00\xff"
    assert sha256(path) == hashlib.sha256(b"\x00\xff").hexdigest()
    assert [each.name for each in path.parent.iterdir()] == ["c.txt"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path, seen, done = tmp_path / "f", set(), threading.Event()
    contents = {letter * 200_000 for letter in "ab"}
    atomic_write(path, "a" * 200_000)

    def read():
        while not done.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(40):
        atomic_write(path, "ab"[i % 2] * 200_000)
    done.set()
    reader.join()
    assert seen == contents


@pytest.mark.parametrize("below", ["file/run/recipe.yaml", "file/recipe.yaml"])
def test_below_a_file_nothing_can_be_written(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(TodmError, match=r"cannot write .*; choose another folder with --out"):
        atomic_write(tmp_path / below, "x")
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = atomic_write(tmp_path / "f", "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TodmError, match="f: No space left on device"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


def test_json(tmp_path):
    value = {"a": [1, 2.5, None, "ä"]}
    path = write_json(tmp_path / "v.json", value)
    assert read_json(path) == value
    assert path.read_text().endswith("}\n")
    with pytest.raises(ValueError):
        write_json(tmp_path / "v.json", {"a": float("nan")})  # no other reader would take it
    assert read_json(path) == value
    path.write_text("{")
    with pytest.raises(TodmError, match=r"v\.json is not valid JSON"):
        read_json(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TodmError, match=r"v\.json is not valid JSON"):
        read_json(path)
    with pytest.raises(TodmError, match=r"cannot read .*w.json: No such file"):
        read_json(tmp_path / "w.json")
