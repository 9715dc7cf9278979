"""The commands for call flows, run as a program."""

import json

import pytest
from pydantic import SecretStr
from rich.console import Console

from callflow_service.console.drawing import draw_flow
from program import run

EMPTY = {"rules": [], "otherwise": {"action": "empty"}}


def changes(url: SecretStr) -> list[str]:
    """The ids of the changes of device 4, newest first."""
    return [str(item["id"]) for item in json.loads(run("flow", "history", "4", "--json", url=url).stdout)["items"]]


def test_a_flow_is_set_drawn_listed_and_taken_back(own_url: SecretStr) -> None:
    states = [
        ("busy", "forward", "--to-number", "+370 612 34567", "--caller-id", "did=1"),
        ("no_answer", "forward", "--to-device", "IAX2/101", "--caller-id", "source"),
        ("before_call", "fax", "--to-device", "2"),
        ("failed", "voicemail"),
    ]
    for state in states:
        done = run("flow", "set", "IAX2/1002", *state, url=own_url)
        assert (done.returncode, done.stderr) == (0, "")
    assert run("flow", "show", "4", url=own_url).stdout == done.stdout
    assert done.stdout == (
        "IAX2/1002, device 4 of user1\n"
        "├── before the call → FAX/102, device 2 where a fax is heard\n"
        "├── no answer       → IAX2/101, device 5 (shows the caller)\n"
        "├── busy            → +37061234567 (shows DID 1)\n"
        "└── failed          → voicemail\n"
    )
    listed = run("flow", "history", "4", "--limit", "2", url=own_url).stdout.splitlines()
    assert listed[0].split() == ["id", "at", "account", "face", "state", "before", "after", "undoes"]
    newest, older = changes(own_url)[:2]
    assert [line.split()[0] for line in listed[1:]] == [newest, older]
    assert listed[1].split()[3:] == ["admin", "cli", "failed", "nothing", "is", "set", "→", "voicemail"]
    done = run("flow", "undo", newest, url=own_url)
    made = changes(own_url)[0]
    assert done.stdout == f"Change {made} takes {newest} back: device 4, failed: nothing is set\n"
    flow = json.loads(run("flow", "show", "4", "--json", url=own_url).stdout)
    assert flow["states"]["failed"] == EMPTY


def test_an_undo_that_would_lose_something_newer_is_told_of_and_can_be_forced(own_url: SecretStr) -> None:
    for leads in (("voicemail",), ("forward", "--to-number", "+37061234567")):
        assert run("flow", "set", "4", "busy", *leads, url=own_url).returncode == 0
    later, first = changes(own_url)
    refused = run("flow", "undo", first, url=own_url)
    assert refused.returncode == 1
    sentence, newer = refused.stderr.splitlines()
    assert sentence.startswith("callflow-service: Something newer would be lost: ")
    assert newer.startswith(f"  change {later} of ")
    made = json.loads(run("flow", "undo", first, "--force", "--json", url=own_url).stdout)
    assert (made["undoes"], made["after"]) == (int(first), EMPTY)


def test_a_whole_state_goes_through_as_the_api_has_it(own_url: SecretStr) -> None:
    state = {"otherwise": {"action": "forward", "steps": [{"to": {"device": 5}}]}}
    setting = ("flow", "set", "4", "busy", "--json-file", "-")
    saved = run(*setting, "--json", url=own_url, stdin=json.dumps(state)).stdout
    assert json.loads(saved)["otherwise"]["steps"][0]["to"] == {"device": 5, "label": "IAX2/101"}
    assert run(*setting, "--json", url=own_url, stdin=saved).stdout == saved
    odd = {"otherwise": {"action": "sing"}, "rules": [], "colour": "red"}
    refused = run(*setting, url=own_url, stdin=json.dumps(odd))
    assert refused.returncode == 1
    assert "  colour: is not known here\n" in refused.stderr
    assert run(*setting, url=own_url, stdin="[").stderr == ("callflow-service: Standard input is not a JSON object.\n")
    assert run("flow", "set", "4", "busy", "--json-file", "/nowhere", url=own_url).returncode == 1


def test_the_rules_of_a_state_stay_where_only_the_rest_is_set(own_url: SecretStr) -> None:
    rule = {"name": "strangers", "if": {"caller": "anonymous"}, "do": {"action": "end", "cause": 603}}
    state = {"rules": [rule], "otherwise": {"action": "empty"}}
    setting = ("flow", "set", "4", "busy")
    assert run(*setting, "--json-file", "-", url=own_url, stdin=json.dumps(state)).returncode == 0
    assert run(*setting, "voicemail", url=own_url).stdout == (
        "IAX2/1002, device 4 of user1\n"
        "├── before the call nothing is set\n"
        "├── no answer       nothing is set\n"
        "├── busy\n"
        "│   ├── strangers: if the caller is anonymous\n"
        "│   │   └── → the call ends with 603\n"
        "│   └── otherwise: → voicemail\n"
        "└── failed          nothing is set\n"
    )


def test_a_ring_is_refused_or_warned_of(own_url: SecretStr) -> None:
    assert run("flow", "set", "4", "no_answer", "forward", "--to-device", "5", url=own_url).returncode == 0
    warned = run("flow", "set", "5", "busy", "forward", "--to-device", "4", url=own_url)
    assert warned.returncode == 0
    assert warned.stderr.startswith("Warning: The forward is part of a ring, device 5 to 4 to 5")
    refused = run("flow", "set", "4", "busy", "forward", "--to-device", "4", url=own_url)
    assert (refused.returncode, refused.stderr.splitlines()[1]) == (1, "  device 4 to 4")


@pytest.mark.parametrize(
    "arguments",
    [
        ("4", "busy"),
        ("4", "busy", "voicemail", "--json-file", "-"),
        ("4", "busy", "voicemail", "--to-device", "5"),
        ("4", "before_call", "fax", "--to-device", "2", "--caller-id", "source"),
        ("4", "busy", "forward", "--to-device", "5", "--caller-id", "did"),
        ("4", "ringing", "voicemail"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_asked(arguments: tuple[str, ...]) -> None:
    assert run("flow", "set", *arguments).returncode == 2


def test_a_label_must_be_one_devices(own_url: SecretStr) -> None:
    assert run("flow", "show", "SIP/nobody", url=own_url).stderr == "callflow-service: There is no device SIP/nobody.\n"
    for _ in range(2):
        run("devices", "add", "technology=SIP", "name=twin", "owner=user1", url=own_url)
    done = run("flow", "show", "sip/twin", url=own_url)
    assert done.stderr == "callflow-service: There are several devices sip/twin; say which by its id: 421, 422.\n"


def test_rules_and_chains_are_drawn() -> None:
    chain = {
        "action": "forward",
        "steps": [
            {"to": {"device": 5}, "ring_seconds": 15, "caller_id": {"kind": "source"}},
            {"to": {"number": "+37062699289"}, "ring_seconds": 20, "caller_id": {"kind": "did", "did": 1}},
        ],
        "then": {"action": "voicemail", "of": {"device": 4}},
    }
    condition = {"not_schedule": 3, "caller": {"not_list": 7}, "called": ["+37052000001"]}
    state = {
        "rules": [
            {"name": "after hours", "enabled": True, "if": condition, "do": chain},
            {"name": "off", "enabled": False, "if": {"caller": "anonymous"}, "do": {"action": "dance", "with": "me"}},
        ],
        "otherwise": {"action": "end", "cause": 486},
    }
    flow = {"device": {"id": 4, "label": "IAX2/1002", "owner": "user1"}, "states": {"busy": state, "failed": EMPTY}}
    console = Console(width=200, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(draw_flow(flow, "->"))
    assert captured.get() == (
        "IAX2/1002, device 4 of user1\n"
        "├── busy\n"
        "│   ├── after hours: if not in schedule 3 and the caller is not in list 7 and +37052000001 is called\n"
        "│   │   └── -> device 5 (15 s, shows the caller) -> +37062699289 (20 s, shows DID 1) "
        "-> voicemail of device 4\n"
        "│   ├── off (switched off): if the caller is anonymous\n"
        '│   │   └── -> dance {"with": "me"}\n'
        "│   └── otherwise: -> the call ends with 486\n"
        "└── failed          nothing is set\n"
    )
