"""Which schemas this release knows, told without loading Alembic: every start waits for this."""

from functools import cache
from pathlib import Path
from typing import Final

_INSTALLED: Final = Path(__file__).parents[1] / "migrations"
_IN_THE_TREE: Final = Path(__file__).parents[3] / "alembic"

MIGRATIONS: Final = _INSTALLED if _INSTALLED.is_dir() else _IN_THE_TREE
"""Where the migrations are: in the installed package, or in the source tree."""


@cache
def known_revisions() -> tuple[str, ...]:
    """The revisions of this release, oldest first: a migration's file begins with its revision, and they count up."""
    return tuple(sorted(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("*_*.py")))
