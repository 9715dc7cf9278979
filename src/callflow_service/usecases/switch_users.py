"""Know the switches that ask: no query and no slow hash in a call's way."""

import asyncio
import base64
import binascii
import logging
import time
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from callflow_service.credentials.counting import Guesser
from callflow_service.credentials.guesses import Guessed, Guesses, guesser
from callflow_service.credentials.switch_passwords import is_switch_password
from callflow_service.domain.asked import SwitchUser
from callflow_service.domain.errors import StorageUnavailable
from callflow_service.repositories import lookups
from callflow_service.storage.database import Database
from callflow_service.storage.replica import ReplicaFirst

_FRESH_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 0.1

_log = logging.getLogger(__name__)


class SwitchUnknown(Exception):
    """No switch user has this name and this password."""


class SwitchUsers:
    """The switch users, kept in memory and read again every few seconds beside the calls.

    While the database is away those known stay known. A user that is unknown, or comes with another password, is looked
    for in the database at once, but not more than once a second.
    """

    def __init__(self, database: Database | ReplicaFirst, guesses: Guesses) -> None:
        self._database = database
        self._guesses = guesses
        self._users: dict[str, SwitchUser] = {}
        # The headers that were right since the users were last read, each with the client to count where one is wrong:
        # the same few come with every call.
        self._recognised: dict[tuple[str, IPv4Address | IPv6Address | None], tuple[SwitchUser, Guesser]] = {}
        self._read_at = float("-inf")
        self._is_read = False
        self._refreshing: asyncio.Task[None] | None = None

    async def admit(self, authorization: str, address: IPv4Address | IPv6Address | None) -> SwitchUser:
        """The switch that an `Authorization` header (HTTP Basic) from an address is of.

        A known switch waits for nothing: what was counted elsewhere is asked about only where the password is wrong.

        Raises:
            SwitchUnknown: It is of none.
            TooManyGuesses: Wrong passwords for this user came from the address too often.
            StorageUnavailable: The users were never read, and cannot be now.
        """
        if time.monotonic() - self._read_at > _FRESH_SECONDS:
            self._refresh()
        if recognised := self._recognised.get((authorization, address)):
            user, client = recognised
            self._guesses.refuse_known(client)
            return user
        credentials = _basic(authorization)
        if credentials is None:
            raise SwitchUnknown
        client = guesser(Guessed.SWITCH_USER, credentials[0], address)
        self._guesses.refuse_known(client)
        found = await self._find(*credentials)
        if found is None:
            await self._guesses.refuse(client)
            await self._guesses.count(client)
            await self._guesses.share(client)
            raise SwitchUnknown
        # Again: of many guesses at once others may have been wrong while the users were read.
        self._guesses.refuse_known(client)
        self._recognised[authorization, address] = found, client
        return found

    async def close(self) -> None:
        """Read no more."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait((self._refreshing,))

    async def _find(self, username: str, password: str) -> SwitchUser | None:
        user = self._known(username, password)
        is_refreshing = self._refreshing is not None and not self._refreshing.done()
        if user is None and (time.monotonic() - self._read_at > _RETRY_SECONDS or is_refreshing):
            # While the database hangs, an unknown user is told so in time all the same.
            refreshing = self._refresh()
            await asyncio.wait((refreshing,), timeout=_PATIENCE_SECONDS if self._is_read else None)
            if refreshing.done():
                refreshing.result()
            user = self._known(username, password)
        if user is None and not self._is_read:
            raise StorageUnavailable("switch users")
        return user

    def _known(self, username: str, password: str) -> SwitchUser | None:
        user = self._users.get(username)
        return user if user and is_switch_password(password, user.password_hash) else None

    def _refresh(self) -> asyncio.Task[None]:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._read())
        return self._refreshing

    async def _read(self) -> None:
        self._read_at = time.monotonic()
        try:
            self._users = await self._database.run(lookups.switch_users)
        except StorageUnavailable:
            _log.warning("The switch users could not be read; those known stay known")
        else:
            self._recognised.clear()
            self._is_read = True


def _basic(authorization: str) -> tuple[str, str] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    username, colon, password = text.partition(":")
    return (username, password) if colon else None
