"""What the site is given besides the pages' text."""

from __future__ import annotations

import re


def on_page_content(html: str, **_: object) -> str:
    """Let names in tables break behind a dot, a colon, a slash or an underscore, and nowhere else."""
    return re.sub(r"(?<=<td>).*?(?=</td>)", _in_cell, html, flags=re.DOTALL)


def _in_cell(cell: re.Match[str]) -> str:
    return re.sub(r"(?<=<code>)[^<]*", lambda code: re.sub(r"(?<=[._:/])(?=\w)", "<wbr>", code[0]), cell[0])
