"""The files of other projects beside the pages are those of the packages and versions that vendored.toml names."""

import tomllib

import pytest

from lab.evidence import sha256
from lab.paths import ROOT

FOLDERS = ("docs/_live", "docs/_static/minisearch")
OWN = {"editor.js", "live.css", "live.js", "vendored.toml"}


@pytest.mark.parametrize("name", FOLDERS)
def test_every_vendored_file_is_named_with_its_source_and_unchanged(name: str) -> None:
    folder = ROOT / name
    vendored = tomllib.loads((folder / "vendored.toml").read_text())
    assert set(vendored) == {path.name for path in folder.iterdir()} - OWN, f"name each in {name}/vendored.toml"
    for file, entry in vendored.items():
        assert set(entry) == {"package", "version", "path", "sha256"}, f"{name}/vendored.toml, {file}"
        source = f"{entry['path']} of {entry['package']} {entry['version']}"
        assert sha256(folder / file) == entry["sha256"], f"{name}/{file} is not {source}: npm pack it, and compare"
