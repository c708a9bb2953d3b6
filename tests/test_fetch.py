"""Data sets are taken from a folder or their home, and only with the pinned checksum."""

import hashlib

import pytest

from todm.errors import TodmError
from todm.fetch import Source

TEXT = b"To be, or not to be"


@pytest.fixture
def source(tmp_path, monkeypatch) -> Source:
    monkeypatch.delenv("TODM_DATA", raising=False)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "input.txt").write_bytes(TEXT)
    return Source("play", (tmp_path / "home").as_uri(), {"input.txt": hashlib.sha256(TEXT).hexdigest()})


def test_a_download_is_kept(source, tmp_path):
    folder = source.fetch(None, tmp_path / "cache")
    assert folder == tmp_path / "cache" / "play"
    assert (folder / "input.txt").read_bytes() == TEXT
    (tmp_path / "home" / "input.txt").unlink()
    assert source.fetch(None, tmp_path / "cache") == folder


def test_the_folder_given_comes_before_the_environment(source, tmp_path, monkeypatch):
    (tmp_path / "data" / "play").mkdir(parents=True)
    (tmp_path / "data" / "play" / "input.txt").write_bytes(TEXT)
    monkeypatch.setenv("TODM_DATA", str(tmp_path / "data"))
    assert source.fetch(None, tmp_path / "cache") == tmp_path / "data" / "play"
    assert source.fetch(tmp_path / "home", tmp_path / "cache") == tmp_path / "home"
    assert not (tmp_path / "cache").exists()


def test_other_content_is_refused_and_not_kept(source, tmp_path):
    (tmp_path / "home" / "input.txt").write_bytes(b"a login page")
    with pytest.raises(TodmError, match="not the pinned one"):
        source.fetch(None, tmp_path / "cache")
    with pytest.raises(TodmError, match="not the pinned one"):
        source.fetch(tmp_path / "home", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_what_is_missing_is_named(source, tmp_path):
    with pytest.raises(TodmError, match="lacks input.txt"):
        source.fetch(tmp_path, tmp_path / "cache")
    (tmp_path / "home" / "input.txt").unlink()
    with pytest.raises(TodmError, match="cannot download .*--data"):
        source.fetch(None, tmp_path / "cache")
