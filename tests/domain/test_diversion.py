"""`Diversion` and `History-Info`: read from anything, counted, converted, continued, written from clean parts only."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callflow_service.domain.callflow import State
from callflow_service.domain.diversion import Came, Diversion, HistoryEntry, Stop, clean_user, read, write

USER1 = "<sip:user1@h>;reason=no-answer;counter=1;privacy=off"
USER2 = "<sip:user2@h>;reason=user-busy;counter=1;privacy=full"
USER3 = "<sip:user3@h>;reason=unconditional;counter=1;privacy=off"
HISTORY1 = "<sip:user1@h?Privacy=none>;index=1"
HISTORY2 = "<sip:user2@h;cause=408?Privacy=history>;index=1.1;mp=1"
HISTORY3 = "<sip:user3@h;cause=486?Privacy=none>;index=1.1.1;mp=1.1"
TARGET = "<sip:target@h;cause=302>;index=1.1.1.1;mp=1.1.1"
WORKED = (f"{USER3}, {USER2}, {USER1}", f"{HISTORY1}, {HISTORY2}, {HISTORY3}, {TARGET}")


def stop(address: str, left: State | None = None, *also: str) -> Stop:
    return Stop(address, frozenset({address, *also}), left)


def written(diversion: str, history_info: str, stops: Sequence[Stop], *, explained: int = 0) -> tuple[str, str]:
    return write(read(diversion, history_info, domain="h"), stops, explained=explained, domain="h")


@pytest.mark.parametrize(
    ("diversion", "history_info"),
    [
        (f"{USER2}, {USER1}", ""),
        ("", f"{HISTORY1}, {HISTORY2}, {HISTORY3}"),
        (f"{USER2}, {USER1}", f"{HISTORY1}, {HISTORY2}, {HISTORY3}"),
        ("", f"{HISTORY1}, {HISTORY2}, <sip:user3@h;cause=486>;index=1.1.1;mp=1.1"),
    ],
)
def test_the_worked_chain_comes_out_whichever_header_came_in(diversion: str, history_info: str) -> None:
    assert written(diversion, history_info, [stop("user3", State.BEFORE_CALL), stop("target")]) == WORKED


def test_a_chain_of_our_own_is_written_from_its_beginning() -> None:
    stops = [stop("a", State.NO_ANSWER), stop("b", State.BUSY), stop("c", State.FAILED), stop("+370")]
    assert written("", "", stops) == (
        (
            "<sip:c@h>;reason=unavailable;counter=1;privacy=off, <sip:b@h>;reason=user-busy;counter=1;privacy=off, "
            "<sip:a@h>;reason=no-answer;counter=1;privacy=off"
        ),
        (
            "<sip:a@h?Privacy=none>;index=1, <sip:b@h;cause=408?Privacy=none>;index=1.1;mp=1, "
            "<sip:c@h;cause=486?Privacy=none>;index=1.1.1;mp=1.1, <sip:+370@h;cause=503>;index=1.1.1.1;mp=1.1.1"
        ),
    )


def test_a_call_that_nobody_diverted_has_neither_header() -> None:
    assert written("", "", [stop("target")]) == ("", "")
    assert written("", "", []) == ("", "")


def test_a_chain_that_came_in_is_continued_to_a_target_that_rings() -> None:
    assert written(USER1, "", [stop("target")]) == (USER1, f"{HISTORY1}, <sip:target@h;cause=408>;index=1.1;mp=1")


def test_a_chain_without_a_known_target_is_repeated() -> None:
    assert written(USER1, "", []) == (USER1, HISTORY1)


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("<sip:u@h>", Diversion("u", "h", "unknown")),
        ("sip:u@h;reason=away", Diversion("u", "h", "away")),
        (
            '"a, <sip:x@y>; \\" b" <sips:u@h:5061;user=phone> ; Reason="User-Busy" ; Counter=2',
            Diversion("u", "h:5061", "user-busy", 2),
        ),
        ("<sip:u;npdi:pw@h>;reason=whatever;privacy=NAME", Diversion("u", "h", "unknown", privacy="name")),
        (
            "<sip:%2B370%23@[2001:db8::1]>;privacy=secret",
            Diversion("+370#", "[2001:db8::1]", "unknown", privacy="full"),
        ),
        ("<tel:+370-6(1).1;phone-context=x>", Diversion("+370611", "our.example", "unknown")),
        ("<sip:u@h>;counter=x", Diversion("u", "h", "unknown")),
        ("<sip:u@h>;counter=0", Diversion("u", "h", "unknown")),
        ("<sip:u@h>;counter=007", Diversion("u", "h", "unknown", 7)),
        ("<sip:u@h>;counter=" + "9" * 9000, Diversion("u", "h", "unknown", 99)),
    ],
)
def test_a_diversion_is_taken_apart(text: str, entry: Diversion) -> None:
    assert read(text, "", domain="our.example") == Came((entry,), ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",;,",
        ";reason=away",
        "<sip:@h>",
        "<sip:a b@h>",
        "<sip:${x}@h>",
        "<tel:>",
        "<sip:u@>",
        "<sip:u@h o>",
        "<sip:u@[h>",
        "<sip:u@h]>",
        "<sip:u@[::1>",
        "<sip:u@h:1:2>",
        "<sip:u@h:port>",
        "<http://u@h>",
        "u@h",
        "<sip:u@h",
        '"<sip:u@h>',
    ],
)
def test_an_entry_that_makes_no_sense_is_not_there(text: str) -> None:
    assert read(text, text, domain="h") == Came()
    assert read(f"{USER1}, {text}", "", domain="h") == Came((Diversion("user1", "h", "no-answer"),))


@pytest.mark.parametrize(
    "uri",
    [
        "sip:10.0.0.1",
        "sip:o'u@h",
        "sip:alice%40contoso.com@h",
        "sip:" + "u" * 65 + "@h",
        "sip:u%0d%0a@h",
    ],
)
def test_an_entry_whose_address_cannot_be_told_counts_all_the_same(uri: str) -> None:
    came = read(f"<{uri}>;reason=user-busy;counter=4", f"<{uri};cause=486>;index=1", domain="h")
    assert came.diversions == (Diversion("anonymous", "anonymous.invalid", "user-busy", 4),)
    assert [(entry.user, entry.host, entry.cause) for entry in came.history] == [
        ("anonymous", "anonymous.invalid", 486)
    ]


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("<sip:u@h>;index=1", HistoryEntry("u", "h", None, "", "1")),
        ("<sip:u@h;cause=302>;index=1", HistoryEntry("u", "h", 302, "", "1")),
        ("<sip:u@h;cause=3x2?Privacy=none>;index=2", HistoryEntry("u", "h", None, "none", "2")),
        ("<sip:u@h;Cause=408?privacy=header%3Bid>;index=1.2;mp=1", HistoryEntry("u", "h", 408, "history", "1.2", "1")),
        ("<sip:u@h?Reason=SIP%3Bcause%3D302>;index=1", HistoryEntry("u", "h", None, "", "1", left=302)),
        ("<sip:u@h?x&Reason=Q.850%3Bcause%3D17>;index=1", HistoryEntry("u", "h", None, "", "1")),
        (
            "<tel:+1?Reason=Q.850%3Bcause%3D17%2CSIP%3Btext%3D%22x%22%3Bcause%3D486>;index=1",
            HistoryEntry("+1", "our.example", None, "", "1", left=486),
        ),
        ("<sip:u@h>;mp=x", HistoryEntry("u", "h", None, "", "1")),
    ],
)
def test_a_history_entry_is_taken_apart(text: str, entry: HistoryEntry) -> None:
    assert read("", text, domain="our.example") == Came((), (entry,))


def test_an_escaped_reason_is_the_cause_of_the_next_entry() -> None:
    came = read("", "<sip:a@h?Reason=SIP%3Bcause%3D302>;index=1, <sip:b@h>;index=1.1", domain="h")
    assert came.history == (HistoryEntry("a", "h", None, "", "1"), HistoryEntry("b", "h", 302, "", "1.1"))


def test_a_diversion_that_is_told_twice_counts_once() -> None:
    history = "<sip:a@h?Reason=SIP%3Bcause%3D486>;index=1, <sip:b@h;cause=302>;index=1.1"
    assert read("", history, domain="h").history_count == 1


def test_diversions_are_counted_by_their_counters() -> None:
    assert read("<sip:a@h>;counter=3, <sip:b@h>", "", domain="h").diversion_count == 4


def test_history_is_counted_by_its_causes() -> None:
    history = f"{HISTORY1}, {HISTORY2}, {HISTORY3}, <sip:d@h?Reason=SIP%3Bcause%3D302>;index=1.1.1.1"
    assert read("", history, domain="h").history_count == 3


def test_the_reason_of_the_newest_entry_is_the_cause_of_what_follows() -> None:
    history = "<sip:a@h?Reason=SIP%3Bcause%3D486>;index=1"
    assert written("", history, [stop("target")]) == (
        "<sip:a@h>;reason=user-busy;counter=1;privacy=off",
        "<sip:a@h>;index=1, <sip:target@h;cause=486>;index=1.1;mp=1",
    )


def test_a_device_that_has_diverted_the_call_before_it_came_back_is_told_of_twice() -> None:
    history = "<sip:a@h?Reason=SIP%3Bcause%3D302>;index=1"
    assert written("", history, [stop("a", State.BUSY), stop("target")]) == (
        "<sip:a@h>;reason=user-busy;counter=1;privacy=off, <sip:a@h>;reason=unconditional;counter=1;privacy=off",
        (
            "<sip:a@h>;index=1, <sip:a@h;cause=302?Privacy=none>;index=1.1;mp=1, "
            "<sip:target@h;cause=486>;index=1.1.1;mp=1.1"
        ),
    )


def test_only_the_newest_64_entries_are_kept() -> None:
    diversions = ", ".join(f"<sip:d{n}@h>" for n in range(70))
    history = ", ".join(f"<sip:h{n}@h>;index=1.{n}" for n in range(70))
    came = read(diversions, history, domain="h")
    assert [entry.user for entry in came.diversions] == [f"d{n}" for n in range(64)]
    assert [entry.user for entry in came.history] == [f"h{n}" for n in range(6, 70)]


def test_an_entry_that_the_cut_goes_through_is_not_there() -> None:
    padding = '"' + "x" * (16 * 1024 - 30) + '" '
    header = f"{padding}<sip:a@h>,sip:b@{'h' * 60}"
    assert [entry.user for entry in read(header, "", domain="h").diversions] == ["a"]


@pytest.mark.parametrize(
    ("indexes", "continued"),
    [
        (("1", "1.1"), ("1", "1.1", "1.1.1;mp=1.1")),
        (("1", "1.3"), ("1", "1.3", "1.3.1;mp=1.3")),
        (("1.1", "1.2"), ("1.1", "1.2", "1.2.1;mp=1.2")),
        (("1.1", "1"), ("1", "1.1;mp=1", "1.1.1;mp=1.1")),
        (("1", "1"), ("1", "1.1;mp=1", "1.1.1;mp=1.1")),
        (("1", "x"), ("1", "1.1;mp=1", "1.1.1;mp=1.1")),
        (("", "1.1"), ("1", "1.1;mp=1", "1.1.1;mp=1.1")),
    ],
)
def test_indexes_are_kept_where_they_are_well_formed(indexes: tuple[str, str], continued: tuple[str, str, str]) -> None:
    history = ", ".join(f"<sip:u{place}@h>;index={index}" for place, index in enumerate(indexes))
    _, text = written("", history, [stop("target")])
    assert tuple(re.findall(r"index=([^,]*)", text)) == continued


def test_the_diverter_of_a_history_entry_is_the_one_it_was_mapped_from() -> None:
    history = "<sip:a@h>;index=1, <sip:b@h>;index=1.1, <sip:c@h;cause=302>;index=1.2;mp=1"
    assert written("", history, [])[0] == "<sip:a@h>;reason=unconditional;counter=1;privacy=off"


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (302, "unconditional"),
        (408, "no-answer"),
        (480, "deflection"),
        (486, "user-busy"),
        (487, "deflection"),
        (503, "unavailable"),
        (404, "unknown"),
        (600, "unknown"),
    ],
)
def test_each_cause_becomes_its_reason(cause: int, reason: str) -> None:
    history = f"<sip:a@h>;index=1, <sip:b@h;cause={cause}>;index=1.1;mp=1"
    assert written("", history, [])[0] == f"<sip:a@h>;reason={reason};counter=1;privacy=off"


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("unconditional", 302),
        ("no-answer", 408),
        ("deflection", 480),
        ("user-busy", 486),
        ("unavailable", 503),
        ("away", 404),
        ("nonsense", 404),
    ],
)
def test_each_reason_becomes_its_cause(reason: str, cause: int) -> None:
    assert written(f"<sip:a@h>;reason={reason}", "", [stop("t")])[1] == (
        f"<sip:a@h?Privacy=none>;index=1, <sip:t@h;cause={cause}>;index=1.1;mp=1"
    )


@pytest.mark.parametrize("privacy", ["full", "name", "uri"])
def test_whatever_is_withheld_in_diversion_is_withheld_in_history(privacy: str) -> None:
    diversion = f"<sip:a@h>;reason=away;counter=1;privacy={privacy}"
    assert written(diversion, "", []) == (diversion, "<sip:a@h?Privacy=history>;index=1")


def test_entries_that_the_path_explains_are_not_repeated_under_any_address() -> None:
    stops = [stop("101", State.BEFORE_CALL, "370"), stop("102", State.NO_ANSWER), stop("103")]
    diversion = f"<sip:102@x>;reason=no-answer, <sip:+370@x>;reason=unconditional, {USER1}"
    history = (
        f"{HISTORY1}, <sip:370@x;cause=408>;index=1.4, <sip:102@x;cause=302>;index=1.4.1, "
        "<sip:103@x;cause=408>;index=1.4.1.1"
    )
    assert written(diversion, history, stops, explained=2) == (
        (
            "<sip:102@h>;reason=no-answer;counter=1;privacy=off, "
            f"<sip:101@h>;reason=unconditional;counter=1;privacy=off, {USER1}"
        ),
        (
            f"{HISTORY1}, <sip:101@h;cause=408?Privacy=none>;index=1.4, "
            "<sip:102@h;cause=302?Privacy=none>;index=1.4.1;mp=1.4, <sip:103@h;cause=408>;index=1.4.1.1;mp=1.4.1"
        ),
    )


def test_an_explained_entry_leaves_its_privacy_and_counter() -> None:
    stops = [stop("101", State.BEFORE_CALL), stop("103")]
    assert written("<sip:101@h>;reason=unconditional;counter=2;privacy=uri", "", stops, explained=1) == (
        "<sip:101@h>;reason=unconditional;counter=2;privacy=uri",
        "<sip:101@h?Privacy=history>;index=1, <sip:103@h;cause=302>;index=1.1;mp=1",
    )


def test_of_two_diversions_by_one_device_the_newest_is_the_newest_that_came() -> None:
    stops = [stop("101", State.BUSY), stop("101", State.BUSY), stop("103")]
    withheld = "<sip:101@h>;reason=user-busy;counter=1;privacy=full"
    shown = "<sip:101@h>;reason=user-busy;counter=1;privacy=off"
    assert written(f"{withheld}, {shown}", "", stops, explained=2)[0] == f"{withheld}, {shown}"


def test_a_device_that_came_withheld_is_told_of_withheld() -> None:
    history = "<sip:101@h?Privacy=history>;index=1"
    assert written("", history, [stop("101", State.BUSY), stop("103")]) == (
        "<sip:101@h>;reason=user-busy;counter=1;privacy=full",
        "<sip:101@h?Privacy=history>;index=1, <sip:103@h;cause=486>;index=1.1;mp=1",
    )
    assert written("", history, [stop("101")]) == ("", history)


def test_the_same_device_with_another_reason_is_another_diversion() -> None:
    stops = [stop("101", State.BEFORE_CALL), stop("102", State.BUSY), stop("103")]
    diversion = "<sip:101@h>;reason=user-busy;counter=1;privacy=off"
    history = "<sip:102@h;cause=408>;index=1"
    ours = "<sip:102@h>;reason=user-busy;counter=1;privacy=off, <sip:101@h>;reason=unconditional;counter=1;privacy=off"
    assert written(diversion, history, stops, explained=2) == (
        f"{ours}, {diversion}",
        (
            "<sip:102@h;cause=408>;index=1, <sip:101@h?Privacy=none>;index=1.1;mp=1, "
            "<sip:102@h;cause=302?Privacy=none>;index=1.1.1;mp=1.1, <sip:103@h;cause=486>;index=1.1.1.1;mp=1.1.1"
        ),
    )


def test_what_the_path_does_not_explain_is_kept() -> None:
    diversion = "<sip:101@h>;reason=unconditional;counter=1;privacy=off"
    assert written(diversion, "", [stop("101", State.BEFORE_CALL), stop("103")])[0] == f"{diversion}, {diversion}"


def test_a_history_of_nothing_but_explained_entries_begins_anew() -> None:
    stops = [stop("101", State.BEFORE_CALL), stop("102")]
    assert written("", "<sip:102@h;cause=302>;index=1.1", stops, explained=1)[1] == (
        "<sip:101@h?Privacy=none>;index=1, <sip:102@h;cause=302>;index=1.1;mp=1"
    )


def test_a_hash_is_escaped_where_it_is_written() -> None:
    assert written("<sip:%2321@h>;reason=away", "", [])[0] == "<sip:%2321@h>;reason=away;counter=1;privacy=off"


def test_an_address_or_domain_that_no_header_can_carry_is_anonymous() -> None:
    stops = [Stop("Jörg", frozenset(), State.BUSY), stop("t")]
    assert write(Came(), stops, explained=0, domain="x y") == (
        "<sip:anonymous@anonymous.invalid>;reason=user-busy;counter=1;privacy=off",
        "<sip:anonymous@anonymous.invalid?Privacy=none>;index=1, <sip:t@anonymous.invalid;cause=486>;index=1.1;mp=1",
    )


@pytest.mark.parametrize(("text", "user"), [("a.B+*#_-9", "a.B+*#_-9"), ("a b", ""), ("", ""), ("a\n", ""), ("ä", "")])
def test_a_user_part_is_on_the_allow_list(text: str, user: str) -> None:
    assert clean_user(text) == user


untimed = settings(deadline=None)

USER = r"(?:[A-Za-z0-9.+*_-]|%23){1,64}"
HOST = r"(?:[A-Za-z0-9.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
INDEX = r"[0-9]+(?:\.[0-9]+)*"
DIVERSION = re.compile(
    rf"<sip:{USER}@{HOST}>;reason=[a-z-]+;counter=[1-9][0-9]?;privacy=(?:full|name|uri|off)", re.ASCII
)
HISTORY = re.compile(
    rf"<sip:{USER}@{HOST}(?:;cause=[1-6][0-9]{{2}})?(?:\?Privacy=(?:history|none))?>;index={INDEX}(?:;mp={INDEX})?",
    re.ASCII,
)

pieces = st.sampled_from(
    [
        *("<sip:101@h", "<sip:%0d@h", "tel:+370", ">", ";cause=408", "?Privacy=history", "?Reason=SIP%3Bcause%3D302"),
        *(";reason=user-busy", ";reason=unconditional", ";counter=2", ";privacy=name", ";index=1.1", ";mp=1", ",", '"'),
        *("\\", "\r\n", "${x}", " ", "é", "101", "<", "@", "h", ";index=1", "<sip:102@h;cause=302>;index=1.2"),
    ]
)
headers = st.text() | st.lists(pieces, max_size=30).map("".join)
left = st.sampled_from(State)
names = st.sampled_from(["101", "102", "+370", "Jörg\r\n", ""])
diverters = st.lists(st.builds(lambda name, state: stop(name, state, "370"), names, left), max_size=4)


targets = st.lists(st.builds(stop, names), max_size=1)


@untimed
@given(
    headers, headers, st.builds(list.__add__, diverters, targets), st.integers(0, 4), st.sampled_from(["h", "x\r\ny"])
)
def test_no_text_brings_anything_but_clean_entries_out(
    diversion: str, history_info: str, stops: list[Stop], explained: int, domain: str
) -> None:
    came = read(diversion, history_info, domain=domain)
    first, second = write(came, stops, explained=explained, domain=domain)
    assert all(DIVERSION.fullmatch(entry) for entry in first.split(", ") if first)
    assert all(HISTORY.fullmatch(entry) for entry in second.split(", ") if second)
    assert len(came.diversions) <= 64
    assert len(came.history) <= 64


@untimed
@given(headers)
def test_what_is_written_reads_as_it_was(diversion: str) -> None:
    came = read(diversion, "", domain="h")
    assert read(*write(came, [], explained=0, domain="h"), domain="h").diversions == came.diversions
