"""The options of `nox -s examples`, `falsify` and `mutants`: which chapters, and what else."""

import argparse
from typing import NoReturn

from lab.database import system
from lab.errors import LabError
from lab.paths import system as needs


class Parser(argparse.ArgumentParser):
    """Takes chapters by name, in whatever place; an error is a `LabError`."""

    def __init__(self, session: str, about: str | None, names: list[str]) -> None:
        """Speak for `nox -s session`; `names` are the chapters that there are."""
        usage = f"nox -s {session} -- [chapter …] [options]"
        chapters = f"The chapters are {', '.join(names)}; where none is named, all are meant."
        super().__init__(usage=usage, description=about, epilog=chapters, allow_abbrev=False)
        self._session = session
        self._names = names

    def take_k(self) -> None:
        """Let claims be chosen with `-k`."""
        self.add_argument("-k", metavar="EXPRESSION", default="", help="only the claims that pytest's -k would choose")

    def take_database(self) -> None:
        """Let the database be chosen with `--database`."""
        self.add_argument(
            "--database", metavar="sqlite|mariadb|URL", help="which database to use; SQLite, if not given"
        )

    def take_pool(self) -> None:
        """Let the pool of the workers be chosen with `--pool`."""
        self.add_argument("--pool", choices=["threads", "prefork"], help="which pool; Alliance Auth's, if not given")

    def take(self, argv: list[str], *, passed_on: bool = False) -> tuple[argparse.Namespace, list[str], list[str]]:
        """Return the options, the chapters and, if they may be `passed_on`, the options that are unknown here."""
        known, others = self.parse_known_args(argv)
        words = [word for word in others if not word.startswith("-")]
        unknown = [word for word in others if word.startswith("-")]
        for word in words:
            if word not in self._names:
                raise LabError(f"There is no chapter {word!r}: name one of {', '.join(self._names)}.")
        if unknown and not passed_on:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, self._fitting(list(dict.fromkeys(words)), getattr(known, "database", None)), unknown

    def _fitting(self, asked: list[str], kind: str | None) -> list[str]:
        """Return the chapters that are asked for, or all that the database of this kind has a say in."""
        other = [name for name in asked or self._names if needs(name) not in ("", system(kind))]
        if other and asked:
            raise LabError(f"The chapter {other[0]!r} needs {needs(other[0])}: add --database mariadb.")
        if other:
            print(f"Left out: {', '.join(other)}, which needs {needs(other[0])}: --database mariadb has it run too.")
        return asked or [name for name in self._names if name not in other]

    def error(self, message: str) -> NoReturn:
        """Raise the message as one sentence."""
        raise LabError(f"nox -s {self._session}: {message}; nox -s {self._session} -- --help lists the options.")
