"""What is packed for the browser: the same bytes each time, and not too many of them."""

import gzip
import subprocess
import sys
from pathlib import Path

from lab.pages.browser import pack
from lab.paths import ROOT

# Megabytes, as a host packs what it serves.
_MOST = 18


def test_two_builds_of_the_pack_give_the_same_bytes(tmp_path: Path) -> None:
    built = {path.name: path.read_bytes() for path in pack.ONLINE.iterdir()}
    # In a process of its own: what is importable here is not what is importable there.
    make = "import sys; from pathlib import Path; from lab.pages.browser import pack; "
    make += "pack.ONLINE = Path(sys.argv[1]); sys.exit(pack.main())"
    subprocess.run([sys.executable, "-c", make, str(tmp_path / "online")], check=True, cwd=ROOT)
    again = {path.name: path.read_bytes() for path in (tmp_path / "online").iterdir()}
    assert sorted(again) == sorted(built)
    assert [name for name in built if built[name] != again[name]] == []


def test_what_is_loaded_is_at_most_eighteen_megabytes() -> None:
    loaded = [path.read_bytes() for path in pack.ONLINE.iterdir() if path.suffix in (".bin", ".js")]
    assert sum(min(len(data), len(gzip.compress(data))) for data in loaded) < _MOST * 1e6
