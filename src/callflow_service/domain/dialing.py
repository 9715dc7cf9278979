"""How a switch dials: templates for devices, numbers and voicemail, and what may stand in them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_SAFE_NAME = re.compile(r"[A-Za-z0-9._+*#-]{1,64}", re.ASCII)
_SAFE_TECHNOLOGY = re.compile(r"[A-Za-z0-9]{1,16}", re.ASCII)

NUMBER: Final = "number"
"""The template of external numbers."""

VOICEMAIL: Final = "voicemail"
"""The template of a device's voicemail."""

OTHER: Final = "default"
"""The template of the technologies that have none of their own."""

_URI: Final = "sip:"
_GATEWAY: Final = "sofia/gateway/"


class Rejected(StrEnum):
    """What a phone's "no" (603, 403, 607) means to a call flow."""

    BUSY = "busy"
    FAILED = "failed"


class Redirected(StrEnum):
    """What becomes of a phone's own redirection (3xx), which is never followed."""

    FAILED = "failed"
    CALLER = "caller"


class Identity(StrEnum):
    """Whose identity is in `From` of a leg to a number: the caller's, or that of the device that forwards."""

    CALLER = "caller"
    FORWARDER = "forwarder"


class ChainHeader(StrEnum):
    """A header that tells a trunk of the diversions."""

    DIVERSION = "diversion"
    HISTORY_INFO = "history_info"


@dataclass(frozen=True, slots=True)
class TrunkRules:
    """What the trunk behind a switch wants of legs to numbers; `from_host` is empty for the switch's own domain."""

    from_host: str = ""
    identity: Identity = Identity.CALLER
    headers: frozenset[ChainHeader] = frozenset(ChainHeader)


NO_TRUNK: Final = TrunkRules()
"""What holds where nothing is said of a trunk."""


@dataclass(frozen=True, slots=True)
class LegRules:
    """How a switch treats its legs; `trunk` is None where nothing is said of one.

    `early_media` lets announcements through that come before the answer.
    """

    rejected: Rejected = Rejected.BUSY
    redirected: Redirected = Redirected.FAILED
    early_media: bool = False
    trunk: TrunkRules | None = None


@dataclass(frozen=True, slots=True)
class DialPlan:
    """The dial strings of one switch: its own templates, over those of its kind.

    An empty template means that the switch cannot dial there. Only names and numbers that no switch can take for
    anything else are put into one. Where a template is a `sip:` URI, `{technology}` is written in lower case.
    """

    templates: Mapping[str, str]
    domain: str
    legs: LegRules = LegRules()

    @property
    def dials_numbers(self) -> bool:
        """Whether it can dial external numbers."""
        return bool(self.templates.get(NUMBER))

    def device(self, technology: str, name: str) -> str:
        """What rings a device; empty where this switch cannot."""
        template = self.templates.get(technology, self.templates.get(OTHER, ""))
        return self._filled(template, technology, name)

    def voicemail(self, technology: str, name: str) -> str:
        """What reaches a device's voicemail; empty where the switch finds it by itself."""
        return self._filled(self.templates.get(VOICEMAIL, ""), technology, name)

    def number(self, number: str) -> str:
        """What reaches an external number; empty where this switch cannot."""
        template = self.templates.get(NUMBER, "")
        return template.replace("{domain}", self.domain).replace("{number}", _in_uri(template, number))

    def _filled(self, template: str, technology: str, name: str) -> str:
        if not (is_safe_name(name) and _SAFE_TECHNOLOGY.fullmatch(technology)):
            return ""
        if template.startswith(_URI):
            technology = technology.lower()
        filled = template.replace("{technology}", technology).replace("{domain}", self.domain)
        return filled.replace("{name}", _in_uri(template, name))


def is_safe_name(name: str) -> bool:
    """Whether a device's name means nothing but itself wherever a switch reads it."""
    return _SAFE_NAME.fullmatch(name) is not None


def _in_uri(template: str, text: str) -> str:
    # The one sign that names and numbers may have and the user part of a URI may not.
    return text.replace("#", "%23") if template.startswith((_URI, _GATEWAY)) else text
