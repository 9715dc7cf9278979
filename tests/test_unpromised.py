"""The names of libraries' that are used without a promise that they stay."""

from types import ModuleType

import pytest

from callflow_service.credentials.guesses import check_limits
from callflow_service.serving.connections import check_uvicorn
from callflow_service.storage.database import check_asyncpg
from callflow_service.unpromised import LibraryChanged, need


class Kept:
    """As a library has it."""

    def __init__(self) -> None:
        self.set_at_the_start = 1

    def method(self) -> None:
        self.set_later = 2


class Inherited(Kept):
    """Another one on it."""


def test_the_installed_uvicorn_has_the_names_that_are_used_of_it() -> None:
    check_uvicorn()


def test_the_installed_asyncpg_has_the_names_that_are_used_of_it() -> None:
    check_asyncpg()


def test_the_installed_limits_has_the_names_that_are_used_of_it() -> None:
    check_limits()


@pytest.mark.parametrize("owner", [Kept, Inherited])
def test_what_a_class_has_or_sets_is_there(owner: type) -> None:
    need(owner, "method", "set_at_the_start", "set_later")


@pytest.mark.parametrize("owner", [Kept, Inherited, ModuleType("library")])
def test_a_name_that_is_gone_is_told_in_a_sentence(owner: type | ModuleType) -> None:
    with pytest.raises(LibraryChanged) as error:
        need(owner, "renamed")
    sentence = "has no renamed in the installed release of its library; install the releases that requirements/ names."
    assert str(error.value) == f"{owner.__name__} {sentence}"
