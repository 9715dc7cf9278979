"""The commands for call flows: drawn, set, their history, taken back."""

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from callflow_service.console.api import Account, Api, AsJson, asked
from callflow_service.console.drawing import draw_flow, in_words
from callflow_service.console.printing import cell, err, fail, out, print_json, print_pages, print_table
from callflow_service.domain.callflow import State

app = typer.Typer(help="Call flows: what a device does with a call in each state.", no_args_is_help=True)

Device = Annotated[str, typer.Argument(metavar="DEVICE", help="The device's id, or its label such as SIP/101.")]

_COLUMNS: Final = ("id", "at", "account", "face", "state", "before", "after", "undoes")
_ARROW: Final = "→" if out.encoding.startswith("utf") else "->"


class Leads(StrEnum):
    """Where a state can be set to lead; fax is for before the call alone."""

    FORWARD = "forward"
    VOICEMAIL = "voicemail"
    FAX = "fax"
    EMPTY = "empty"


_OPTIONS: Final = {
    Leads.FORWARD: ("--to-device", "--to-number", "--ring-seconds", "--caller-id"),
    Leads.FAX: ("--to-device",),
}


@app.command()
def show(device: Device, as_json: AsJson = False, account: Account = None) -> None:  # noqa: FBT002 - as Typer has it
    """Draw a device's call flow."""

    async def work(api: Api) -> dict[str, Any]:
        return await api.get(f"/v1/devices/{await _device(api, device)}/callflow")

    flow = asked(account, work)
    if as_json:
        print_json(flow)
    else:
        out.print(draw_flow(flow, _ARROW))


@app.command("set")
def set_(  # noqa: PLR0913, PLR0917 - the options
    device: Device,
    state: Annotated[State, typer.Argument(help="The state that is set.")],
    leads: Annotated[Leads | None, typer.Argument(help="Where it leads; fax is for before_call alone.")] = None,
    to_device: Annotated[str | None, typer.Option(help="The device it goes to, by id or label.")] = None,
    to_number: Annotated[str | None, typer.Option(help="The number it goes to.")] = None,
    ring_seconds: Annotated[int | None, typer.Option(help="How long it rings there; else as long as usual.")] = None,
    caller_id: Annotated[
        str | None, typer.Option(help="What a forward shows: device, source, did=ID or custom=TEXT.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option(help="The whole state as the JSON API has it, from a file; - is standard input.")
    ] = None,
    as_json: AsJson = False,  # noqa: FBT002 - as Typer has it
    account: Account = None,
) -> None:
    """Set where a device's call flow leads in one state; its rules stay, unless --json-file has others."""
    if (leads is None) == (json_file is None):
        raise typer.BadParameter("say where it leads, or give --json-file, and not both", param_hint="LEADS")
    more = {"--to-device": to_device, "--to-number": to_number, "--ring-seconds": ring_seconds}
    more["--caller-id"] = caller_id
    for option, value in more.items():
        if value is not None and (leads is None or option not in _OPTIONS.get(leads, ())):
            raise typer.BadParameter(f"does not go with {leads or '--json-file'}", param_hint=option)
    whole = _read(json_file) if json_file else None
    shows = _caller_id(caller_id)

    async def work(api: Api) -> tuple[dict[str, Any], dict[str, Any]]:
        key = await _device(api, device)
        body = whole
        if leads is not None:
            to = await _to(api, to_device, to_number)
            # As MOR's calls do it: what the rules decide, they go on to decide.
            rules = (await api.get(f"/v1/devices/{key}/callflow/{state}"))["rules"]
            body = {"rules": rules, "otherwise": _action(leads, to, ring_seconds, shows)}
        saved = await api.send("PUT", f"/v1/devices/{key}/callflow/{state}", body)
        return saved, await api.get(f"/v1/devices/{key}/callflow")

    saved, flow = asked(account, work)
    if as_json:
        print_json(saved)
        return
    for warning in saved.get("warnings", ()):
        err.print(f"Warning: {warning}")
    out.print(draw_flow(flow, _ARROW))


@app.command()
def history(
    device: Device,
    limit: Annotated[int | None, typer.Option(min=1, help="How many at most; else all of them.")] = None,
    as_json: AsJson = False,  # noqa: FBT002 - as Typer has it
    account: Account = None,
) -> None:
    """List the changes of a device's call flow, newest first."""

    async def work(api: Api) -> None:
        pages = api.pages(f"/v1/devices/{await _device(api, device)}/callflow/history", {}, limit)
        if as_json:
            await print_pages(pages)
        else:
            await print_table(pages, _COLUMNS, _cells)

    asked(account, work)


@app.command()
def undo(
    change: Annotated[int, typer.Argument(metavar="ID", help="The change's id, as history lists it.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Also where something newer is lost by it.")] = False,
    as_json: AsJson = False,
    account: Account = None,
) -> None:
    """Take a change of a call flow back."""
    made = asked(account, lambda api: api.send("POST", f"/v1/history/{change}/undo", {"force": force}))
    if as_json:
        print_json(made)
    else:
        leads = in_words(made["after"], _ARROW)
        out.print(f"Change {made['id']} takes {change} back: device {made['device']}, {made['state']}: {leads}")


async def _device(api: Api, name: str) -> int:
    """The id of a device that is named by its id or its label."""
    if name.isascii() and name.isdecimal():
        return int(name)
    found = []
    async for page in api.pages("/v1/devices", {"q": name}, None):
        found += [item["id"] for item in page["items"] if item["label"].lower() == name.lower()]
    if not found:
        fail(f"There is no device {name}.")
    if len(found) > 1:
        fail(f"There are several devices {name}; say which by its id: {', '.join(map(str, found))}.")
    return int(found[0])


async def _to(api: Api, device: str | None, number: str | None) -> dict[str, Any]:
    to: dict[str, Any] = {}
    if device is not None:
        to["device"] = await _device(api, device)
    if number is not None:
        to["number"] = number
    return to


def _action(leads: Leads, to: dict[str, Any], ring_seconds: int | None, caller_id: dict[str, Any]) -> dict[str, Any]:
    match leads:
        case Leads.FORWARD:
            step = {"to": to} | ({"ring_seconds": ring_seconds} if ring_seconds else {})
            return {"action": "forward", "steps": [step | ({"caller_id": caller_id} if caller_id else {})]}
        case Leads.FAX:
            return {"action": "fax_detect", "to": to}
        case _:
            return {"action": str(leads)}


def _caller_id(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    kind, _, rest = text.partition("=")
    match kind:
        case "device" | "source" if not rest:
            return {"kind": kind}
        case "did" if rest.isascii() and rest.isdecimal():
            return {"kind": "did", "did": int(rest)}
        case "custom" if rest:
            return {"kind": "custom", "text": rest}
        case _:
            raise typer.BadParameter("must be device, source, did=ID or custom=TEXT", param_hint="--caller-id")


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text("utf-8"))
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}.")
    except ValueError:
        document = None
    if not isinstance(document, dict):
        fail(f"{'Standard input' if str(file) == '-' else file} is not a JSON object.")
    # As it was shown, it has what is not sent.
    return {name: value for name, value in document.items() if name not in {"etag", "warnings"}}


def _cells(entry: Mapping[str, Any]) -> list[str]:
    shown = {name: cell(entry[name]) for name in _COLUMNS}
    shown |= {side: in_words(entry[side], _ARROW) for side in ("before", "after")}
    # To the second: the API's document has the rest.
    shown["at"] = f"{entry['at'][:19].replace('T', ' ')}Z"
    return [shown[name] for name in _COLUMNS]
