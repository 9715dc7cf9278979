"""The OpenAPI document as it is kept in `docs/openapi.json`; `make openapi` writes it."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from httpx import ASGITransport, AsyncClient

from callflow_service.app import create_app
from callflow_service.settings import Settings
from openapi_breaks import breaks

KEPT = Path(__file__).parents[2] / "docs/openapi.json"


async def made() -> dict[str, Any]:
    """The document as the service gives it, with the settings as they come; it asks no database."""
    app = create_app(Settings(database_url="postgresql://nowhere/nothing"))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://service") as client:
        document: dict[str, Any] = (await client.get("/openapi.json")).json()
    return document


def kept() -> dict[str, Any]:
    """The document as clients were made for it."""
    document: dict[str, Any] = json.loads(KEPT.read_text())
    return document


def main() -> None:
    """Keep the document as it is now, unless that would break clients and was not asked for."""
    document = asyncio.run(made())
    broken = breaks(kept(), document) if KEPT.exists() else []
    sys.stderr.writelines(f"{each}\n" for each in broken)
    if broken and "--breaking" not in sys.argv:
        sys.exit("This would break clients. Nothing was written; --breaking writes it all the same.")
    KEPT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
