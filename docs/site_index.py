"""MkDocs hook: the home page is README.md, with links relative to docs/ and without links to files outside of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

README = Path(__file__).parents[1] / "README.md"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace the content of index.md by that of README.md."""
    if page.file.src_uri != "index.md":
        return markdown
    text = re.sub(r"\]\(docs/", "](<docs>", README.read_text(encoding="utf-8"))
    text = re.sub(r"\[([^]]+)\]\((?!<docs>|https?:)[^)]+\)", r"\1", text)
    return text.replace("](<docs>", "](")
