"""Resources as a world file has them: what callers show may stand in it as the database keeps it."""

from typing import Annotated, Final

from pydantic import Field, ValidationInfo, field_validator

from callflow_service.resources.flows import FlowItem
from callflow_service.resources.models import ITEMS, AccountItem, Item, Resource, Section, SwitchItem
from callflow_service.resources.types import EncryptedKey, PasswordHash, Secret, SwitchPasswordHash

AS_STORED: Final = ("password_hash", "api_key_encrypted")
"""Keys of secrets as the database keeps them, which people seldom write."""

_INSTEAD: Final = "cannot stand beside {}, for only one of them counts"


# The fields of a later base come first, so what is checked of an account knows of them.
class AccountSecrets(Resource):
    """What an account shows, as it is stored."""

    password_hash: Annotated[
        PasswordHash | None, Field(repr=False, description="In place of `password`: its hash, as `export` prints it")
    ] = None
    api_key_encrypted: Annotated[
        EncryptedKey | None,
        Field(repr=False, description="In place of `api_key`: encrypted with one of the keys that are set"),
    ] = None


class KeptAccount(AccountItem, AccountSecrets):
    """Who may change call flows."""

    @field_validator("api_key")
    @classmethod
    def _one_api_key(cls, api_key: str | None, info: ValidationInfo) -> str | None:
        if api_key is not None and info.data.get("api_key_encrypted") is not None:
            raise ValueError(_INSTEAD.format("api_key_encrypted"))
        return api_key

    @field_validator("password")
    @classmethod
    def _one_password(cls, password: str | None, info: ValidationInfo) -> str | None:
        if password is not None and info.data.get("password_hash") is not None:
            raise ValueError(_INSTEAD.format("password_hash"))
        return password


class SwitchSecrets(Resource):
    """What a switch shows, as it is stored."""

    password_hash: Annotated[
        SwitchPasswordHash | None,
        Field(repr=False, description="In place of `password`: its hash, as `export` prints it"),
    ] = None


class KeptSwitch(SwitchItem, SwitchSecrets):
    """A switch that may ask where a call goes, and how it dials."""

    password: Secret | None = Field(  # type: ignore[assignment]  # one of the two is enough
        None, repr=False, validate_default=True, description="Stored as a fast hash, so it should be long and random"
    )

    @field_validator("password")
    @classmethod
    def _one_password(cls, password: str | None, info: ValidationInfo) -> str | None:
        has_hash = info.data.get("password_hash") is not None
        if password is not None and has_hash:
            raise ValueError(_INSTEAD.format("password_hash"))
        if password is None and not has_hash and "password_hash" in info.data:
            raise ValueError("is missing")
        return password


KeptItem = Item | FlowItem
"""An item of any section."""

MODELS: Final[dict[Section, type[KeptItem]]] = {
    **ITEMS,
    Section.ACCOUNTS: KeptAccount,
    Section.SWITCHES: KeptSwitch,
    Section.FLOWS: FlowItem,
}
"""The model of each section."""
