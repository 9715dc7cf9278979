"""What the documents point to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def anchors(document: Path) -> set[str]:
    """What a link may name of a document: its headings, as web pages of repositories write them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)", document.read_text())
    for target, anchor in links:
        file = document.parent / target if target else document
        assert file.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(file), f"{target}#{anchor} is not there"


def test_every_file_that_keeps_or_tests_a_promise_is_there() -> None:
    table = re.findall(r"^\| .+ \| (.+) \| (.+) \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    kept = [file for row in table for file in re.findall(r"`([\w/]+\.py)`", row[0])]
    tested = [file for row in table for file in re.findall(r"`(tests/[\w/.]+)`", row[1])]
    assert len(kept) > 10
    assert [file for file in kept if not (ROOT / "src/callflow_service" / file).is_file()] == []
    assert [file for file in tested if not (ROOT / file).exists()] == []
