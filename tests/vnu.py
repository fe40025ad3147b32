"""The Nu HTML Checker, https://validator.github.io/validator/, over the built site. `python -m tests.vnu`, after docs.

It is a Java program, which npm fetches; without Java and npm the site can't be checked, which the answer 3 says.
"""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from lab.paths import BUILD

VERSION = "26.9.27"
# npm's own, over the package.
SHA512 = "TkQd5DFfOaWC9ebtvozTsrH2Vaod3jYg+vrOeREzIXxBexLz9+rS2DNtjn7+RPUiZhgli0SghgBX6RJRNea0KA=="
UNCHECKED = 3
_JAR = BUILD / f"vnu-{VERSION}.jar"


class Missing(Exception):
    """Something that the checker needs is not on this machine."""


def jar() -> Path:
    """Return the checker, fetched once; raises `Missing` where it can't be had."""
    for program in ("java", "npm"):
        if not shutil.which(program) and not (program == "npm" and _JAR.exists()):
            raise Missing(f"there is no {program} on PATH")
    if not _JAR.exists():
        with tempfile.TemporaryDirectory() as folder:
            command = ["npm", "pack", "--silent", f"vnu-jar@{VERSION}"]
            fetched = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            packages = list(Path(folder).glob("*.tgz"))
            if fetched.returncode or not packages:
                raise Missing(f"npm could not fetch vnu-jar {VERSION}")
            package = packages[0].read_bytes()
            found = base64.b64encode(hashlib.sha512(package).digest()).decode()
            if found != SHA512:
                raise SystemExit(f"vnu-jar {VERSION} is not what was pinned: its SHA-512 is {found}. Look into it.")
            with tarfile.open(packages[0]) as archive:
                member = archive.extractfile("package/build/dist/vnu.jar")
                assert member
                _JAR.write_bytes(member.read())
    return _JAR


def check(*paths: Path) -> str:
    """Return what the checker finds wrong with HTML files and folders, a line for each; nothing if they are clean."""
    command = ["java", "-jar", str(jar()), "--skip-non-html", "--format", "gnu", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr


def main() -> int:
    """Check the built site."""
    try:
        found = check(BUILD / "html")
    except Missing as missing:
        print(f"The HTML of the site was NOT checked: {missing}. With a Java runtime and npm, run nox -s site again.")
        return UNCHECKED
    print(found or "The HTML of the site is valid.", end="" if found else "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
