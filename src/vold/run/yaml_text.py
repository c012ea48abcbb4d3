"""The one way YAML is read: every key once, nothing that grows when it is unfolded, and mistakes with their lines."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from vold.errors import ConfigError
from vold.run.names import close_to

if TYPE_CHECKING:
    from pathlib import Path

LONGEST = 1 << 20
"""Bytes of a file."""
OTHER = "give the path of a YAML file"
"""What to do about one that cannot be read."""
DEEPEST = 64
"""Lists and mappings inside each other."""
MOST = 100_000
"""Values of a file, with every alias written out."""


def read_yaml(path: Path, kind: str) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Args:
        path: the file.
        kind: what it is, such as `recipe`.

    Raises:
        ConfigError: there is none, it is no text, too long, no YAML, no mapping, or says a key twice.
    """
    return sections_in(text_of(path, kind), path, kind)


def sections_in(text: str, path: Path, kind: str) -> dict[str, Any]:
    """The mapping that the text of a file holds; see `read_yaml` for errors."""
    found = parse_yaml(text, what=f"this {kind} is not valid YAML", where=str(path))
    if not isinstance(found, dict):
        got = "an empty file" if found is None else f"a {type(found).__name__}"
        fix = f"write sections, a name and a colon each; see docs/{'recipes' if kind == 'recipe' else kind}.md"
        raise ConfigError(f"a {kind} is a mapping of sections", where=str(path), got=got, fix=fix)
    return found


def text_of(path: Path, kind: str) -> str:
    """The text of a YAML file; see `read_yaml` for errors."""
    try:
        with path.open("rb") as f:
            content = f.read(LONGEST + 1)
    except OSError as error:
        got = error.strerror or str(error)
        raise ConfigError(f"cannot read this {kind}", where=str(path), got=got, fix=_other(path)) from None
    except ValueError as error:  # a name that no file can have
        where = repr(str(path))
        raise ConfigError(f"cannot read this {kind}", where=where, got=str(error), fix=OTHER) from None
    if len(content) > LONGEST:
        got = f"a file of more than {LONGEST:,} bytes"
        raise ConfigError(f"this is no {kind}", where=str(path), got=got, fix=OTHER)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        got = f"a byte that is not UTF-8 on line {line}"
        raise ConfigError(f"this {kind} is not valid YAML", where=str(path), got=got, fix="save it as UTF-8") from None


def parse_yaml(text: str, *, what: str = "this is not valid YAML", where: str = "") -> Any:
    """The value that a YAML text stands for; no tag makes anything but plain values.

    Raises:
        ConfigError: `what` is said of `where`, and the line is named.

    Example:
        >>> parse_yaml("{a: 1, b: [x, null]}")
        {'a': 1, 'b': ['x', None]}
    """
    if yaml.__with_libyaml__:  # seven times as fast; what it refuses, PyYAML itself may take, and says more of if not
        with contextlib.suppress(yaml.YAMLError, ValueError):
            return _value(text, yaml.CSafeLoader)
    try:
        return _value(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        said = ", ".join(filter(None, (error.context, error.problem, error.note)))
        raise ConfigError(what, where=where, got=place + said, fix=_fix(error)) from None
    except (yaml.YAMLError, ValueError) as error:
        got = " ".join(str(error).split())[:500]
        raise ConfigError(what, where=where, got=got, fix="drop what is no plain text") from None


def _value(text: str, events: type[yaml.SafeLoader | yaml.CSafeLoader]) -> Any:
    loader = _Loader(text, events)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class _Twice(yaml.MarkedYAMLError):
    """A key that a mapping has already."""


def _fix(error: yaml.MarkedYAMLError) -> str:
    twice = "keep one of the two: the last would silently win"
    return twice if isinstance(error, _Twice) else "look there, and before it, at brackets, quotes, colons and blanks"


def _other(path: Path) -> str:
    """The file that was meant, as far as there is one of nearly its name."""
    known = os.path.isdir(path.parent) and not os.path.exists(path)  # unlike pathlib's, these take any name
    beside = {f.stem: f for f in path.parent.glob("*.yaml")} if known else {}
    close = close_to(path.stem, beside)
    return f"did you mean {beside[close]}?" if close else OTHER


class _Loader(Composer, SafeConstructor, Resolver):
    """PyYAML's safe loader, which lets nothing pass in silence; `events` reads the text."""

    def __init__(self, text: str, events: type[yaml.SafeLoader | yaml.CSafeLoader]) -> None:
        for base in (Composer, SafeConstructor, Resolver):
            base.__init__(self)
        read = events(text)
        self.check_event, self.get_event = read.check_event, read.get_event
        self.peek_event, self.dispose = read.peek_event, read.dispose
        self._depth, self._seen = 0, set[int]()
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Count how deep a node lies and how many values it stands for. An alias gives the node that it names."""
        self._depth += 1
        if self._depth > DEEPEST and parent is not None:
            raise _refusal(parent, f"more than {DEEPEST} lists and mappings inside each other")
        alias = self.check_event(yaml.AliasEvent)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if alias and node is not None and id(node) not in self._sizes:
            raise _refusal(node, "an alias inside of what it stands for")
        if node is not None and not alias:
            self._sizes[id(node)] = 1 + sum(self._sizes[id(inner)] for inner in _inner(node))
            if self._sizes[id(node)] > MOST:
                raise _refusal(node, f"aliases that stand for more than {MOST:,} values")
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Name the line of a value that is not what it looks like, such as the date 2024-99-99."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
            why = str(error)[:200] if isinstance(error, ValueError) else f"no value of {node.tag}"
            raise yaml.constructor.ConstructorError(problem=why, problem_mark=node.start_mark) from None

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse a key that is there twice, before keys are merged in from elsewhere (`<<`), which a key may repeat."""
        if id(node) not in self._seen:
            self._seen.add(id(node))
            marks: dict[Any, yaml.Mark] = {}
            for key, _ in node.value:
                mark = key.start_mark
                name = key.value if key.tag == "tag:yaml.org,2002:merge" else self.construct_object(key, deep=True)
                if not isinstance(name, str | int | float | None):
                    raise yaml.constructor.ConstructorError(
                        problem="a key that is no word", problem_mark=key.start_mark
                    )
                if name in marks:
                    said = f"the key {name!r} is there twice: first on line {marks[name].line + 1}"
                    raise _Twice(problem=said, problem_mark=mark)
                marks[name] = mark
        super().flatten_mapping(node)


def _refusal(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.composer.ComposerError(problem=problem, problem_mark=node.start_mark)


def _inner(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [one for pair in node.value for one in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []
