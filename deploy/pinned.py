"""Prints the part of requirements.lock that some packages need, versions and hashes unchanged.

`python pinned.py requirements.lock NAME|PYPROJECT...`: NAME is a package in the lock; PYPROJECT is a pyproject.toml whose
dependencies are wanted. Each entry of the lock says after `# via` who needs it; following that gives the whole set without
asking anybody. `pip install --require-hashes` refuses the result if anything were missing. Standard library only, because it
runs before anything is installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

LOCAL = re.compile(r"narupa[-_.]")


def entries(lock: str) -> dict[str, list[tuple[str, set[str]]]]:
    """Package name to its entries in the lock (several where versions differ by Python), each with who needs it."""
    found: dict[str, list[tuple[str, set[str]]]] = {}
    for text in re.split(r"\n(?=[A-Za-z0-9])", lock):
        if not (head := re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", text)):
            continue
        _, _, via = text.partition("# via")
        needed_by = {line.strip(" #") for line in via.splitlines()}
        found.setdefault(normal(head[0]), []).append((text.rstrip("\n"), {normal(name) for name in needed_by if name}))
    return found


def normal(name: str) -> str:
    """The name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(argument: str) -> set[str]:
    """The packages that an argument names."""
    if not argument.endswith(".toml"):
        return {normal(argument)}
    dependencies = tomllib.loads(Path(argument).read_text())["project"]["dependencies"]
    names = (re.split(r"[\[;<>=!~ ]", dependency, maxsplit=1)[0] for dependency in dependencies)
    return {normal(name) for name in names if not LOCAL.match(name)}


def closure(lock: dict[str, list[tuple[str, set[str]]]], start: set[str]) -> list[str]:
    """The entries of `start` and of everything they need, in the lock's order."""
    names = set(start)
    while more := {name for name, items in lock.items() if name not in names and any(by & names for _, by in items)}:
        names |= more
    if missing := names - lock.keys():
        raise SystemExit(
            f"pinned: not in the lock: {', '.join(sorted(missing))}; add to requirements.in and run `make lock`"
        )
    return [text for name, items in lock.items() if name in names for text, _ in items]


if __name__ == "__main__":
    path, *arguments = sys.argv[1:]
    pinned = closure(entries(Path(path).read_text()), set().union(*map(wanted, arguments)))
    print("\n".join(pinned))
