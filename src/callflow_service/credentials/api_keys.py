"""Encrypt API keys at rest: in the database they are encrypted, in memory alone they are plain."""

import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cachetools import LRUCache
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from callflow_service.domain.errors import StorageUnavailable
from callflow_service.settings import PREFIX, SettingsError

ENCRYPTED: Final = "fernet:"
"""What an encrypted API key begins with; one without it is of a database from before encryption, and is plain."""

SETTING: Final = f"{PREFIX}ENCRYPTION_KEYS"
FILE_NAME: Final = "encryption.key"

# More accounts than one worker hears of in an hour, and some five megabytes.
_REMEMBERED: Final = 10_000

_log = logging.getLogger(__name__)


class Undecipherable(SettingsError):
    """An API key was encrypted with a key that is not here."""


def new_key() -> str:
    """A fresh key to encrypt with."""
    return Fernet.generate_key().decode()


class Keyring:
    """The keys that API keys are encrypted with: the first encrypts, all decrypt.

    They are those of the setting, and never change; or else those of a file, which is made when something is first
    encrypted, and is read again when an API key does not open, for then the keys were rotated. A key that was in the
    file once is kept in memory: a request may hold what was encrypted with it a moment before.

    Raises:
        SettingsError: The setting, or the file, holds something else than keys; the text never quotes it.
    """

    def __init__(self, setting: SecretStr, data_dir: Path) -> None:
        self._decrypted: LRUCache[str, str] = LRUCache(_REMEMBERED)
        self._reported: set[str] = set()
        self._fernets: dict[str, Fernet] = {}
        self._file: _KeyFile | None = None
        self._file_version: object = None
        if text := setting.get_secret_value():
            self.source = SETTING
            self._take(_keys(text, f"The setting {SETTING}"))
        else:
            self._file = _KeyFile(data_dir / FILE_NAME)
            self.source = f"the file {self._file.path}"
            self._read_if_changed()

    def encrypt(self, api_key: str) -> str:
        """The API key as it is stored: another text each time.

        Raises:
            SettingsError: There is no key yet, and the file for one cannot be made.
        """
        if self._file:
            self._file.make()
            self._read_if_changed()
        return ENCRYPTED + self._first.encrypt(api_key.encode()).decode()

    def decrypt(self, stored: str) -> str:
        """The API key that is stored so; what was decrypted before is remembered.

        Raises:
            Undecipherable: None of the keys opens it.
        """
        if not stored.startswith(ENCRYPTED):
            return stored
        api_key = self._decrypted.get(stored)
        if api_key is None:
            api_key = self._decrypted[stored] = self._open(stored)
        return api_key

    def decrypt_afresh(self, stored: str) -> str:
        """What is stored so, without remembering it: a text that is long, or seldom needed.

        Raises:
            Undecipherable: None of the keys opens it.
        """
        return self._open(stored)

    def decrypt_for_request(self, stored: str, username: str) -> str:
        """The API key that an account signs with. That it cannot be decrypted is logged once for each account.

        Raises:
            StorageUnavailable: None of the keys opens it.
        """
        try:
            return self.decrypt(stored)
        except Undecipherable:
            if username not in self._reported:
                self._reported.add(username)
                where = f"{self.source}, and {SETTING} is not set" if self._file else SETTING
                _log.error("The API key that account %r signs with cannot be decrypted with %s", username, where)
            raise StorageUnavailable("an API key cannot be decrypted") from None

    def opens(self, stored: str) -> bool:
        """Whether a stored API key can be read."""
        try:
            self.decrypt(stored)
        except Undecipherable:
            return False
        return True

    def is_current(self, stored: str) -> bool:
        """Whether a stored API key is encrypted with the first key."""
        return stored.startswith(ENCRYPTED) and _opened(stored, [self._first]) is not None

    def put_new_key_in_front(self) -> None:
        """Where the keys are in a file, encrypt with a new one from now on.

        Raises:
            SettingsError: The file cannot be written.
        """
        if self._file:
            self._file.write([new_key(), *self._file.read()])
            self._read_if_changed()

    def drop_old_keys(self) -> None:
        """Where the keys are in a file, leave the first alone in it: nothing in the database needs the others.

        Raises:
            SettingsError: The file cannot be written.
        """
        if self._file:
            self._file.write(self._file.read()[:1])

    @property
    def _first(self) -> Fernet:
        return next(iter(self._fernets.values()))

    def _open(self, stored: str) -> str:
        api_key = _opened(stored, self._fernets.values())
        if api_key is None:
            # Whatever is wrong with the file by now, the answer is that this API key does not open.
            with suppress(SettingsError):
                self._read_if_changed()
            api_key = _opened(stored, self._fernets.values())
        if api_key is None:
            raise Undecipherable(f"An API key cannot be decrypted with {self.source}.")
        return api_key

    def _read_if_changed(self) -> None:
        if self._file and (version := self._file.version()) != self._file_version:
            self._take(self._file.read())
            self._file_version = version

    def _take(self, keys: list[str]) -> None:
        self._fernets = {key: Fernet(key) for key in keys} | {
            key: fernet for key, fernet in self._fernets.items() if key not in keys
        }


class _KeyFile:
    """The file with the keys, one a line, for its owner's eyes alone. It is there as a whole, or not at all."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path

    def read(self) -> list[str]:
        """The keys; none where there is no file."""
        try:
            text = self.path.read_text("ascii", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SettingsError(f"The encryption key's file {self.path} cannot be read: {error.strerror}.") from None
        return _keys(text, f"The file {self.path}")

    def version(self) -> object:
        """Another one after each change; None where there is no file."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def make(self) -> None:
        """Make it with a new key unless it is there; of several processes at once, one makes it for all."""
        if self.version() is None:
            with self._draft([new_key()]) as draft, suppress(FileExistsError):
                os.link(draft, self.path)

    def write(self, keys: list[str]) -> None:
        """Put it in the place of the one that is there."""
        with self._draft(keys) as draft:
            draft.replace(self.path)

    @contextmanager
    def _draft(self, keys: list[str]) -> Iterator[Path]:
        """A file beside it, which survives a crash before it is put in its place, and so before anything needs it."""
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{FILE_NAME}.", dir=folder)
            try:
                with os.fdopen(descriptor, "w") as draft:
                    draft.writelines(f"{key}\n" for key in keys)
                    draft.flush()
                    os.fsync(draft.fileno())
                yield Path(name)
            finally:
                Path(name).unlink(missing_ok=True)
            _make_durable(folder)
        except OSError as error:
            raise SettingsError(
                f"{SETTING} is not set, and the file {self.path} for a key cannot be written: {error.strerror}. "
                f"Set {SETTING} to what 'callflow-service new-key' prints."
            ) from None


def _keys(text: str, place: str) -> list[str]:
    keys = [key for key in re.split(r"[\s,]+", text) if key]
    try:
        for key in keys:
            Fernet(key)
    except ValueError:
        keys = []
    if not keys:
        raise SettingsError(f"{place} is wrong: not keys such as 'callflow-service new-key' prints, comma-separated.")
    return keys


def _opened(stored: str, fernets: Iterable[Fernet]) -> str | None:
    try:
        return MultiFernet(fernets).decrypt(stored.removeprefix(ENCRYPTED).encode()).decode()
    except (InvalidToken, ValueError):
        # The latter where there are no keys at all.
        return None


def _make_durable(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
