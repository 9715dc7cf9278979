"""What the tests encrypt API keys with."""

from pathlib import Path
from typing import Final

from pydantic import SecretStr

from callflow_service.credentials.api_keys import Keyring

KEY: Final = SecretStr("dGhlIHRlc3RzIG93biBrZXkgb2YgMzIgbGV0dGVycy4=")
KEYS: Final = Keyring(KEY, Path("nowhere"))
