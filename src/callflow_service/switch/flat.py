"""Asterisk and OpenSIPS: the shared names, form-encoded or as flat JSON on one line."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

import orjson

from callflow_service.domain.asked import Asked
from callflow_service.domain.dialing import DialPlan
from callflow_service.domain.routing import Decision
from callflow_service.switch.answers import Answer, carry_on_answer, shared_answer
from callflow_service.switch.questions import read_question

_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Asterisk:
    """`CURL()` with `hashcompat`, which takes a form; `format=json` for those who would rather decode JSON."""

    name: str = "asterisk"

    @property
    def templates(self) -> Mapping[str, str]:
        """How Asterisk dials where the switch user says nothing else."""
        return {
            "SIP": "PJSIP/{name}",
            # Asterisk has no channel type FAX: what sends faxes is registered like any phone.
            "FAX": "PJSIP/{name}",
            "default": "{technology}/{name}",
            "number": "PJSIP/{number}@trunk",
        }

    def read(self, values: Mapping[str, str]) -> Asked:
        """The question."""
        return read_question(values)

    def write(self, decision: Decision, plan: DialPlan, asked: Asked, values: Mapping[str, str]) -> tuple[str, bytes]:
        """The answer, with its media type."""
        return _written(shared_answer(decision, plan, explain=asked.explain), values)

    def carry_on(self, values: Mapping[str, str]) -> tuple[str, bytes]:
        """The answer where we have none."""
        return _written(carry_on_answer(values), values)


@dataclass(frozen=True, slots=True)
class OpenSips:
    """`rest_post` and `$json`; the shipped configuration asks where Kamailio does, for the sake of its routes."""

    name: str = "opensips"

    @property
    def templates(self) -> Mapping[str, str]:
        """How OpenSIPS dials where the switch user says nothing else."""
        return URI_TEMPLATES

    def read(self, values: Mapping[str, str]) -> Asked:
        """The question."""
        return read_question(values)

    def write(self, decision: Decision, plan: DialPlan, asked: Asked, values: Mapping[str, str]) -> tuple[str, bytes]:  # noqa: ARG002 - the faces' common shape
        """The answer, with its media type."""
        return _JSON, one_line(shared_answer(decision, plan, explain=asked.explain))

    def carry_on(self, values: Mapping[str, str]) -> tuple[str, bytes]:
        """The answer where we have none."""
        return _JSON, one_line(carry_on_answer(values))


URI_TEMPLATES: Final = {
    "SIP": "sip:{name}@{domain}",
    "default": "sip:{technology}-{name}@{domain}",
    "number": "sip:{number}@{domain}",
}
"""How a SIP proxy dials where its switch user says nothing else."""


def one_line(document: Mapping[str, object]) -> bytes:
    """JSON on one line: some clients read no further."""
    return orjson.dumps(document)


def _written(answer: Answer, values: Mapping[str, str]) -> tuple[str, bytes]:
    if values.get("format") == "json":
        return _JSON, one_line(answer)
    # A space as %20: not every decoder reads a + as one.
    return _FORM, urlencode(answer, quote_via=quote, safe="").encode()
