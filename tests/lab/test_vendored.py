"""The files of other projects in docs/_live are those of the packages and versions that vendored.toml names."""

import tomllib

from lab.evidence import sha256
from lab.paths import ROOT

FOLDER = ROOT / "docs" / "_live"
OWN = {"live.css", "live.js", "vendored.toml"}


def test_every_vendored_file_is_named_with_its_source_and_unchanged() -> None:
    vendored = tomllib.loads((FOLDER / "vendored.toml").read_text())
    assert set(vendored) == {path.name for path in FOLDER.iterdir()} - OWN, "name each in docs/_live/vendored.toml"
    for name, entry in vendored.items():
        assert set(entry) == {"package", "version", "path", "sha256"}, f"docs/_live/vendored.toml, {name}"
        source = f"{entry['path']} of {entry['package']} {entry['version']}"
        assert sha256(FOLDER / name) == entry["sha256"], f"docs/_live/{name} is not {source}: npm pack it, and compare"
