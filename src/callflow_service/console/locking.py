"""The commands that lock an account and open it again."""

from typing import Annotated, Any, Final

import typer

from callflow_service.console.api import Account, Api, AsJson, asked
from callflow_service.console.printing import fail, out, print_json

app = typer.Typer()

Locked = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Username of the account.")]

_REASONS: Final = {
    "changed_since": "was changed since",
    "device_gone": "its device is gone",
    "target_gone": "what it led to is gone",
    "loop": "it would close a ring",
}


@app.command()
def lock(username: Locked, as_json: AsJson = False, account: Account = None) -> None:  # noqa: FBT002 - as Typer has it
    """Empty all forwards to numbers of an account and those below it; unlock puts them back."""
    document = asked(account, lambda api: _send(api, username, "lock"))
    if as_json:
        print_json(document)
    else:
        out.print(f"States that led to numbers and are empty now: {document['changed']}.")


@app.command()
def unlock(username: Locked, as_json: AsJson = False, account: Account = None) -> None:  # noqa: FBT002 - as Typer has it
    """Put back what lock emptied, in each state that nobody has changed since."""
    document = asked(account, lambda api: _send(api, username, "unlock"))
    if as_json:
        print_json(document)
        return
    out.print(f"States that are as they were: {document['restored']}; left alone: {document['left']}.")
    for each in document["left_alone"]:
        out.print(f"  device {each['device']} {each['state']}: {_REASONS[each['reason']]}")


async def _send(api: Api, username: str, call: str) -> dict[str, Any]:
    async for page in api.pages("/v1/accounts", {"q": username}, None):
        for item in page["items"]:
            if item["username"] == username:
                return await api.send("POST", f"/v1/accounts/{item['id']}/{call}")
    return fail(f"There is no account {username}.")
