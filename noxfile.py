#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["nox==2026.10.20"]
# ///
"""Every job of this project. `nox -l` lists them; what follows `--` goes to the job."""

import argparse
import hashlib
import os
import shutil
import sys
from pathlib import Path

import nox

if sys.platform == "win32":
    sys.exit("Nothing of this runs on Windows, which has no fork(): use WSL, the Windows Subsystem for Linux.")

nox.needs_version = ">=2025.5.1"
nox.options.sessions = ["lint", "examples", "falsify", "tests", "docs", "site"]
nox.options.error_on_missing_interpreters = True

ROOT = Path(__file__).resolve().parent
LOCK = ROOT / "requirements.txt"
HOME = ROOT / ".nox" / "all"
# Where the site will be published, from whoever builds it: by hand, Read the Docs, GitLab. conf.py reads the same.
ADDRESSES = ("SITE_URL", "READTHEDOCS_CANONICAL_URL", "CI_PAGES_URL")
# What only `nox -s docs` needs, to make what a browser loads.
ONLINE = ROOT / ".nox" / "online"
ONLINE_LOCK = ROOT / "requirements-online.txt"
# MariaDB's driver, into the environment of all. It is built where it is installed.
DRIVER_LOCK = ROOT / "requirements-mariadb.txt"


def environment(session: nox.Session, home: Path = HOME, lock: Path = LOCK) -> str:
    """Return the Python of the environment in `home`, installing its lock first where that has changed.

    All sessions share one: one for each would be the same 180 packages seven times.
    """
    stamp, python = home / "lock.sha256", str(home / "bin" / "python")
    wanted = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        session.log(f"Installing {lock.name} into {home.relative_to(ROOT)} (once; a minute or two with pip)")
        stamp.unlink(missing_ok=True)
        # Without their dependencies, as the lock is whole: it leaves out mysqlclient, which needs a compiler.
        what = ["--require-hashes", "--no-deps", "-r", str(lock)]
        if shutil.which("uv"):
            session.run("uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(home), external=True)
            session.run("uv", "pip", "install", "--quiet", "--python", python, *what, external=True)
        else:
            session.run(sys.executable, "-m", "venv", "--clear", str(home), external=True)
            session.run(python, "-m", "pip", "install", "--quiet", "--progress-bar=off", *what, external=True)
        stamp.write_text(wanted)
    return python


def _driver(session: nox.Session, home: Path = HOME, lock: Path = LOCK) -> None:
    """Build MariaDB's driver; nothing else needs a compiler."""
    python = environment(session, home, lock)
    stamp = home / "driver.sha256"
    wanted = hashlib.sha256(DRIVER_LOCK.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    session.log(f"Building what {DRIVER_LOCK.name} names (once; some seconds)")
    # uv is in the environment of all, and unlike pip it holds what builds a package to the lock too.
    uv = [environment(session), "-m", "uv", "pip", "install", "--python", python]
    what = ["--require-hashes", "--no-deps", "--build-constraints", str(DRIVER_LOCK), "-r", str(DRIVER_LOCK)]
    try:
        session.run(*uv, *what, external=True, silent=True)
    except nox.command.CommandFailed:
        session.error(
            "mysqlclient, MariaDB's driver, can't be built here: on Debian and Ubuntu install gcc, pkg-config, "
            "python3-dev and libmariadb-dev, or leave --database away, which takes SQLite."
        )
    stamp.write_text(wanted)


def _database(session: nox.Session) -> tuple[list[str], list[str]]:
    """Return which database the job's words ask for, and its other words; build the driver where that is no SQLite."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--database", nargs="?")
    known, rest = parser.parse_known_args(session.posargs)
    if known.database not in (None, "sqlite"):
        _driver(session)
    return ["--database", known.database] if known.database else [], rest


def run(session: nox.Session, *command: str, code: tuple[int, ...] = (0,)) -> None:
    """Run `python *command` in the environment; what it starts ends when nox does."""
    python = environment(session)
    # After Ctrl-C it gets the time to end what it has started.
    session.run(
        python,
        *command,
        # An empty word is none: what was compiled is kept, or hundreds of processes would compile it anew.
        env={"LAB_PARENT": str(os.getpid()), "PYTHONDONTWRITEBYTECODE": ""},
        external=True,
        success_codes=code,
        interrupt_timeout=10,
    )


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Check the code: Ruff's rules and format, mypy's types."""
    run(session, "-m", "ruff", "check", ".")
    run(session, "-m", "ruff", "format", "--check", ".")
    run(session, "-m", "mypy")


@nox.session(venv_backend="none")
def examples(session: nox.Session) -> None:
    """Run the examples on real parts and write the evidence. `-- chains`, `-- --broker embedded`, `-- -k lock`.

    `-- --database mariadb` runs them on MariaDB instead of SQLite.
    """
    chosen, rest = _database(session)
    run(session, "-m", "lab", *chosen, *rest)


@nox.session(venv_backend="none")
def falsify(session: nox.Session) -> None:
    """Break what each claim guards and demand that its test goes red. `-- chains`, `-- -k lock`."""
    chosen, rest = _database(session)
    run(session, "-m", "lab.falsify", *chosen, *rest)


@nox.session(venv_backend="none", default=False)
def mutants(session: nox.Session) -> None:
    """Change every line of the examples and demand that a claim goes red. `-- chains`, `-- settings`; resumable."""
    chosen, rest = _database(session)
    run(session, "-m", "lab", "--needed", *chosen)
    run(session, "-m", "lab.mutants", *chosen, *rest)


@nox.session(venv_backend="none", default=False)
def matrix(session: nox.Session) -> None:
    """Run every claim on the releases, pools, brokers and databases people have. `-- aa-5.0 mariadb`; resumable."""
    locks = {lock.stem: lock for lock in sorted((ROOT / "matrix").glob("aa-*.txt"))}
    for name in set(locks).intersection(session.posargs) or locks:
        home = ROOT / ".nox" / "matrix" / name
        environment(session, home, locks[name])
        if shutil.which("mariadb_config"):
            _driver(session, home, locks[name])
    run(session, "-m", "lab.matrix", *session.posargs)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Test the lab itself: its errors, its manners with a lent Redis, what it leaves behind. Pytest's options."""
    # Most of it is waiting for runs of their own.
    run(session, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "tests/lab", *session.posargs)


def _online(session: nox.Session) -> None:
    """Install what makes and tests what a browser loads for Run, in an environment of its own."""
    stamp = ONLINE / "lock.sha256"
    wanted = hashlib.sha256(ONLINE_LOCK.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    session.log(f"Installing {ONLINE_LOCK.name} into {ONLINE.relative_to(ROOT)} (once; about 65 MB)")
    session.run(sys.executable, "-m", "venv", "--clear", str(ONLINE), external=True)
    what = ["--require-hashes", "--no-deps", "-r", str(ONLINE_LOCK)]
    pip = [str(ONLINE / "bin" / "python"), "-m", "pip", "install", "--quiet", "--progress-bar=off"]
    session.run(*pip, *what, external=True)
    stamp.write_text(wanted)


def _pack(session: nox.Session) -> None:
    """Make what a browser loads for Run."""
    _online(session)
    run(session, "-m", "lab.pages.browser.pack")


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Build the site into build/html, warnings as errors; runs the examples first whose evidence is missing.

    `-- --published` fails at once where the site's address is not known, which cards, canonical links and sitemap need.
    """
    chosen, words = _database(session)
    rest = [word for word in words if word != "--published"]
    if rest != words and not any(map(os.environ.get, ADDRESSES)):
        session.error(f"The site can't be published without its address: set {ADDRESSES[0]} to it.")
    run(session, "-m", "lab", "--needed", *chosen)
    if "prose" not in session.posargs:
        _pack(session)
    build = ["-m", "sphinx", "-W", "--keep-going", "-q", "-j", "auto", "-b", "html", "-c", ".", "-d", "build/doctrees"]
    run(session, *build, "docs", "build/html", *rest)
    session.log("The site is in build/html")


@nox.session(venv_backend="none", requires=["docs"])
def site(session: nox.Session) -> None:
    """Test the built site and the live server in a headless Chromium, and what is copied. Pytest's options."""
    run(session, "-m", "tests.browser")
    _online(session)
    where = ["tests/site", "tests/live", "tests/online/test_calls.py", "tests/online/test_contracts.py"]
    where += ["tests/test_guards.py"]
    run(session, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", *where, *session.posargs)
    # 3 is its word for a machine that has not what it needs, which it has said in a sentence; a fault is 1.
    run(session, "-m", "tests.vnu", code=(0, 3))


@nox.session(venv_backend="none", default=False)
def new(session: nox.Session) -> None:
    """Write a chapter that is green at once, and say what to fill in. `-- rate_limits`; `-- --remove rate_limits`."""
    run(session, "-m", "lab.scaffold", *session.posargs)


@nox.session(venv_backend="none", default=False)
def online(session: nox.Session) -> None:
    """Prove Run on the built site anew and write docs/recorded/online.json; break it on purpose, run it 500 times."""
    run(session, "-m", "tests.browser")
    _pack(session)
    run(session, "-m", "tests.online.record")
    run(session, "-m", "pytest", "-q", "-s", "tests/online", *session.posargs)


@nox.session(venv_backend="none", default=False)
def live(session: nox.Session) -> None:
    """Read, edit and run the examples in your browser, on a broker and a worker of your own. Ctrl-C ends it."""
    run(session, "-m", "lab.pages.server", *session.posargs)


@nox.session(venv_backend="none", default=False)
def bench(session: nox.Session) -> None:
    """Measure a run of the examples (ratio to its own waiting, shares, peak memory), the live server, and Run."""
    run(session, "-m", "tests.browser")
    run(session, "-m", "lab.measure")
    run(session, "-m", "tests.live.measure")
    # Of the site as `nox -s docs` has built it.
    run(session, "-m", "tests.online.measure")


@nox.session(venv_backend="none", default=False)
def mariadb(session: nox.Session) -> None:
    """Test the lab on MariaDB, where that and a compiler are installed. Pytest's options."""
    _driver(session)
    run(session, "-m", "pytest", "-q", "tests/mariadb", *session.posargs)


@nox.session(venv_backend="none", default=False)
def load(session: nox.Session) -> None:
    """Send 100,000 tasks to 1, 2 and 4 workers, count, write docs/recorded/load.json. `-- --tasks 1000`: a trial."""
    run(session, "-m", "lab.load", *session.posargs)


@nox.session(venv_backend="none", default=False)
def lock(session: nox.Session) -> None:
    """Write every lock anew from what was chosen, and say what moved."""
    run(session, "-m", "lab.lock")


if __name__ == "__main__":
    nox.main()
