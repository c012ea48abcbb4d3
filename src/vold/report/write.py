"""Both pages are written here: templates that escape, text that is cleaned, a policy that runs one script, one move."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from vold.errors import clean
from vold.report.charts import FAILURES, OUTCOMES, outcome_chart, score_chart
from vold.report.text import Json, decimal, link, p_value, part, percent, short, words
from vold.run.files import write_text


def write_page(file: Path, template: str, content: Json) -> Path:
    """Render a template with the names in `content` and put the page in the place of an older one. Returns its path.

    The whole page goes through `clean`: no text can play tricks in it or stop it from being written.
    """
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    environment.filters |= {f.__name__: f for f in (breakable, decimal, p_value, percent, short, words)}
    environment.globals |= {f.__name__: f for f in (link, outcome_chart, part, score_chart)}
    environment.globals |= {"outcomes": OUTCOMES, "failures": FAILURES}
    html = clean(environment.get_template(template).render(content))
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = hashlib.sha256(script.group(1).encode() if script else b"").digest()
    write_text(file, html.replace("SCRIPT-HASH", f"'sha256-{base64.b64encode(digest).decode()}'", 1))
    return file


def breakable(text: str) -> Markup:
    """A name that may go on in the next line after a slash, an underscore, a dot or a colon, and not within a word.

    Example:
        >>> breakable("org/base_7")
        Markup('org/<wbr>base_<wbr>7')
    """
    return Markup("<wbr>").join(re.split(r"(?<=[/_.:])(?=.)", text))
