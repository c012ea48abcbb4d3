"""Every page is written here: templates that escape, text that is cleaned, a policy that runs one script, one move."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from vold.errors import clean
from vold.report.charts import FAILURES, OUTCOMES, outcome_chart, score_chart
from vold.report.readings import LUCKY, READ_WRONG, REASONED_WRONG
from vold.report.text import Json, decimal, link, p_value, part, percent, short, words
from vold.run.files import write_text


def write_page(file: Path, template: str, content: Json) -> Path:
    """Render a page and put it in the place of an older one. Returns its path."""
    write_text(file, render(template, content))
    return file


def render(template: str, content: Json) -> str:
    """A template with the names in `content`.

    The whole text goes through `clean`: nothing can play tricks in it or stop it from being written. What stands as
    JSON in it hides from that, and has to be clean before.
    """
    html = clean(_templates().get_template(template).render(content))
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = hashlib.sha256(script.group(1).encode() if script else b"").digest()
    return html.replace("SCRIPT-HASH", f"'sha256-{base64.b64encode(digest).decode()}'", 1)


@cache
def _templates() -> Environment:
    """Kept, as it keeps what it has compiled: that takes longer than to render a page."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    environment.filters |= {f.__name__: f for f in (as_json, breakable, decimal, p_value, percent, short, words)}
    environment.globals |= {f.__name__: f for f in (link, outcome_chart, part, score_chart)}
    environment.globals |= {"outcomes": OUTCOMES, "failures": FAILURES, "kinds": (READ_WRONG, REASONED_WRONG, LUCKY)}
    return environment


def as_json(value: object) -> Markup:
    """A value as JSON that no text in it can end early.

    Example:
        >>> as_json(["</script>"])
        Markup('["\\\\u003c/script\\\\u003e"]')
    """
    text = json.dumps(value, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def breakable(text: str) -> Markup:
    """A name that may go on in the next line after a slash, an underscore, a dot or a colon, and not within a word.

    Example:
        >>> breakable("org/base_7")
        Markup('org/<wbr>base_<wbr>7')
    """
    return Markup("<wbr>").join(re.split(r"(?<=[/_.:])(?=.)", text))
