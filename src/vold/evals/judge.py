"""The `vlmevalkit` protocol's marking: a judge model extracts the answer, rules compare it with the gold.

In the style of VLMEvalKit, with two of its habits left out on purpose: an answer that cannot be read is marked wrong
and counted, never replaced by a random option; and no text of a model is ever evaluated as code.
"""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from vold.evals.endpoint import EndpointSampler
from vold.evals.scoring import compare, find_answer, option_lines, read_letters
from vold.graders.extract import after_thinking
from vold.graders.outcome import TRUNCATED, UNCLOSED, UNREADABLE
from vold.rundir import append_jsonl, read_jsonl
from vold.types import Grade, Message, SamplingParams

if TYPE_CHECKING:
    from vold.config import Endpoint
    from vold.evals.types import Item
    from vold.types import Finish

NOTHING = "NONE"
"""What the judge is told to say where there is no answer."""

PARAMS = SamplingParams(max_new_tokens=128, temperature=0.0)


class Judge:
    """A judge behind an endpoint; its replies are kept in a file, so that marking again gives the same scores.

    Args:
        endpoint: the judge's server.
        directory: where replies are kept; one file a judge.
    """

    def __init__(self, endpoint: EndpointSampler, directory: Path) -> None:
        self.endpoint = endpoint
        name = hashlib.sha256(endpoint.model.encode()).hexdigest()[:12]
        self.file = directory / f"{name}.jsonl"
        self.replies = {r["key"]: str(r["reply"]) for r in read_jsonl(self.file)}
        self._lock = threading.Lock()

    @classmethod
    def from_config(cls, config: Endpoint, directory: Path) -> Judge:
        """Build from a recipe's section; raises as `EndpointSampler.from_config`."""
        return cls(EndpointSampler.from_config(config), directory)

    @property
    def identity(self) -> str:
        """The judge's model and the text it is asked with: part of the protocol hash."""
        digest = hashlib.sha256(json.dumps(_prompts(), sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.endpoint.model} ({digest})"

    def ask(self, prompt: str) -> str:
        """The judge's reply, from the file if it was asked before.

        Raises:
            SamplerError: the judge cannot be reached. Replies so far are kept.
        """
        key = hashlib.sha256(f"{self.endpoint.model}\n{prompt}".encode()).hexdigest()
        with self._lock:
            if key in self.replies:
                return self.replies[key]
        reply = self.endpoint.chat((Message("user", prompt),), PARAMS)
        with self._lock:
            self.replies[key] = reply.text
            append_jsonl(self.file, [{"key": key, "reply": reply.text}])
        return reply.text


def score_vlmevalkit(item: Item, response: str, judge: Judge, *, finish: Finish = "stop") -> Grade:
    """Mark a response: read it by rule where that is plain, else let the judge extract the answer, then compare.

    Raises:
        SamplerError: the judge cannot be reached.
    """
    text = after_thinking(response)
    if text is None:
        return Grade(0.0, None, TRUNCATED if finish == "length" else UNCLOSED)
    plain = find_answer(response).answer
    if plain is not None:
        grade = compare(item, plain)
        if not grade.note.startswith(UNREADABLE):
            return grade
    if not text.strip():
        return Grade(0.0, None, f"{UNREADABLE}: empty")
    reply = _reply(judge.ask(prompt(item, text)))
    if not reply or reply.upper() == NOTHING:
        return Grade(0.0, None, f"{UNREADABLE}: the judge finds no answer")
    if item.form == "choice" and read_letters(reply) is None and not item.options:
        return Grade(0.0, reply, f"{UNREADABLE}: the judge gave no letter")
    return compare(item, reply)


def prompt(item: Item, text: str) -> str:
    """What the judge is asked about an item of this form."""
    prompts = _prompts()
    template: str = prompts.get(item.form, prompts["math"])
    parts = {"question": item.question, "options": "\n".join(option_lines(item.options)), "response": text}
    # One pass over the template: a response that holds "{question}" stays as it is.
    pieces = template.split("{")
    out = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}")
        out.append(parts[name] + rest)
    return "".join(out)


def _reply(text: str) -> str:
    """The judge's answer without its own thinking, quotes or a label."""
    text = (after_thinking(text) or "").strip()
    line = text.splitlines()[-1].strip() if text else ""
    for label in ("Extracted answer:", "Answer:"):
        line = line[len(label) :].strip() if line.lower().startswith(label.lower()) else line
    return line.strip("\"'`").strip()


@functools.cache
def _prompts() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "prompts" / "judge.yaml").read_text())
    return content
