"""Write every lock anew from what was chosen, and say what moved: `python -m lab.lock`, what `nox -s lock` does."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from lab.errors import LabError, told
from lab.paths import ROOT

_OPTIONS = "--universal --python-version 3.11 --generate-hashes --quiet --upgrade"
_COMPILE = [sys.executable, "-m", "uv", "pip", "compile", *_OPTIONS.split(), "--custom-compile-command", "nox -s lock"]
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
# Only imported when the database is MySQL; it has no Linux wheel.
_WITHOUT = "mysqlclient; sys_platform == 'never'\n"
_RUNNER = "nox==2026.10.20\n"


def moved(before: str, after: str) -> list[str]:
    """Return in lines, as a changelog has them, which pins of a lock's text came, went or changed."""
    old, new = (dict(_PIN.findall(text)) for text in (before, after))
    lines = [f"{name} {new[name]}, which is new" for name in sorted(new.keys() - old.keys())]
    lines += [f"{name} {old[name]} is gone" for name in sorted(old.keys() - new.keys())]
    changed = [name for name in sorted(old.keys() & new.keys()) if old[name] != new[name]]
    return lines + [f"{name} {old[name]} → {new[name]}" for name in changed]


def main(_: list[str]) -> int:
    """Write the locks; 0 where each could be."""
    with tempfile.TemporaryDirectory(prefix="celery-faq-") as folder:
        without, runner = Path(folder) / "without.txt", Path(folder) / "nox.in"
        without.write_text(_WITHOUT)
        runner.write_text(_RUNNER)
        override = ["--override", str(without)]
        _write("requirements.txt", "requirements.in", *override)
        for name in ("online", "mariadb"):
            _write(f"requirements-{name}.txt", f"requirements-{name}.in", "--no-annotate", "--no-deps")
        for wanted in sorted((ROOT / "matrix").glob("aa-*.in")):
            _write(f"matrix/{wanted.stem}.txt", f"matrix/{wanted.name}", "--no-annotate", *override)
        _write("requirements-nox.txt", str(runner), "--no-annotate")
    return 0


def _write(lock: str, wanted: str, *options: str) -> None:
    path = ROOT / lock
    before = path.read_text() if path.exists() else ""
    command = [*_COMPILE, *options, wanted, "-o", lock]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    if done.returncode:
        raise LabError(f"{lock} can't be written from {Path(wanted).name}: {done.stderr.strip()[-500:]}")
    lines = moved(before, path.read_text()) if before else []
    found = "" if lines else " nothing moved" if before else " written, there was none"
    print("\n".join([f"{lock}:{found}", *(f"- {line}" for line in lines)]), flush=True)


if __name__ == "__main__":
    sys.exit(told(main))
