"""`python -m lab`: run the examples and write the evidence; `nox -s examples` calls it."""

import argparse
import sys

import pytest

from lab import run
from lab.errors import LabError
from lab.paths import EXAMPLES, ROOT, chapters
from lab.plugin import Claims

QUIET = [
    "-qq",
    "--no-header",
    "--disable-warnings",
    "-p",
    "no:cacheprovider",
    "--tb=short",
    "-c",
    str(ROOT / "pyproject.toml"),
]


def main(argv: list[str]) -> int:
    """Run the chapters named in `argv` (all, if none) on the broker it names; return pytest's exit code."""
    parser = argparse.ArgumentParser(prog="nox -s examples --", description=__doc__)
    parser.add_argument("chapter", nargs="*", help=f"one or more of: {', '.join(chapters())}")
    parser.add_argument("--broker", metavar="embedded|path|URL", help="which Redis or Valkey to use")
    known, passed_on = parser.parse_known_args(argv)
    # What follows an option of pytest's, such as the words after -k, is pytest's too.
    names = [word for word in known.chapter if word in chapters()]
    for word in known.chapter:
        if word in names or (passed_on and argv[argv.index(word) - 1].startswith("-")):
            if word not in names:
                passed_on.insert(passed_on.index(argv[argv.index(word) - 1]) + 1, word)
            continue
        print(f"There is no chapter {word!r}. The chapters are: {', '.join(chapters())}.", file=sys.stderr)
        return 2
    targets = [str(EXAMPLES / name) for name in names or chapters() if (EXAMPLES / name).is_dir()]
    try:
        standing = run.start(known.broker)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    try:
        code = int(pytest.main([*QUIET, *passed_on, *targets], plugins=[Claims(standing)]))
        if code == pytest.ExitCode.NO_TESTS_COLLECTED:
            print("There is no claim that matches: look at the names with nox -s examples.", file=sys.stderr)
        return code
    finally:
        standing.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
