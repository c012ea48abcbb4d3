"""Names of tests stand in footnotes, not in what is read. An author writes them in brackets, or as a table's cell."""

from __future__ import annotations

import re

TEST = r"`(?:test_\w+\.py)?::\w+`"
TESTS = rf"{TEST}(?:,\s+{TEST})*"
NOTE = re.compile(r"^\[\^(\d+)\]: (.*)$", re.MULTILINE)
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def moved(page: str) -> str:
    """A page whose tests in brackets, and those that are a table's cell, are notes at its end, equal ones one note."""
    notes = {text: int(number) for number, text in NOTE.findall(page)}
    body = NOTE.sub("", page).rstrip("\n")

    def mark(found: re.Match[str]) -> str:
        text = " ".join(found[1].split())
        return f"[^{notes.setdefault(text, 1 + max(notes.values(), default=0))}]"

    parts = FENCE.split(body)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(rf"\s+\(({TESTS})\)", mark, parts[i])
        parts[i] = re.sub(rf"(?<=\| )({TESTS})(?= \|)", mark, parts[i])
    listed = "\n".join(f"[^{number}]: {text}" for text, number in sorted(notes.items(), key=lambda note: note[1]))
    return "".join(parts) + (f"\n\n{listed}\n" if listed else "\n")
