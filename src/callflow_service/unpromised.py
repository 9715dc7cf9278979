"""Check that a library still has the names that we use without its promise to keep them."""

from types import FunctionType, ModuleType


class LibraryChanged(Exception):
    """An installed library lacks a name that this release needs; the text is a sentence for the operator."""


def need(owner: type | ModuleType, *names: str) -> None:
    """Check that a class or a module has the names; a class has also what its methods set or read of themselves.

    Raises:
        LibraryChanged: It lacks one.
    """
    had = set(dir(owner))
    for method in (getattr(owner, name, None) for name in dir(owner)):
        if isinstance(method, FunctionType):
            had.update(method.__code__.co_names)
    for name in names:
        if name not in had:
            raise LibraryChanged(
                f"{owner.__name__} has no {name} in the installed release of its library; "
                "install the releases that requirements/ names."
            )
