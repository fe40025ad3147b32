"""What is packed for the browser: the same bytes each time, and not too many of them."""

import gzip
from pathlib import Path

import pytest

from lab.pages.browser import pack

# Megabytes, as a host packs what it serves.
_MOST = 18


def test_two_builds_of_the_pack_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = {path.name: path.read_bytes() for path in pack.ONLINE.iterdir()}
    monkeypatch.setattr(pack, "ONLINE", tmp_path / "online")
    assert pack.main() == 0
    again = {path.name: path.read_bytes() for path in (tmp_path / "online").iterdir()}
    assert sorted(again) == sorted(built)
    assert [name for name in built if built[name] != again[name]] == []


def test_what_is_loaded_is_at_most_eighteen_megabytes() -> None:
    loaded = [path.read_bytes() for path in pack.ONLINE.iterdir() if path.suffix in (".bin", ".js")]
    assert sum(min(len(data), len(gzip.compress(data))) for data in loaded) < _MOST * 1e6
