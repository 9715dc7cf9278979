"""What the README says is so."""

import re
from pathlib import Path

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from callflow_service.settings import PREFIX, Settings

README = Path(__file__).parents[1] / "README.md"


def shown(default: object) -> str:
    if default is PydanticUndefined or default == () or default == SecretStr(""):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{','.join(default)}`" if isinstance(default, tuple) else f"`{default}`"


def settings_table() -> str:
    rows = [
        f"| `{PREFIX}{name.upper()}` | {shown(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])


def test_the_readme_has_every_setting_with_its_default_and_meaning() -> None:
    table = re.search(r"<!-- settings -->\n(.*?)\n<!-- /settings -->", README.read_text(), re.DOTALL)
    assert table is not None
    assert table[1] == settings_table()
