"""What is wrong with a recipe, in a user's words: every mistake with its place, what was found, and how to mend it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

from vold.errors import ConfigError, VoldError
from vold.run.names import close_to
from vold.run.task_sections import InvalidTaskSet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import ValidationError
    from pydantic.fields import FieldInfo

Keys = tuple[str | int, ...]
"""Where a value stands: keys of sections and places in lists."""

KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
"""What values of a type are called."""
SHOWN = 120
"""Characters shown of a value."""
WANTED = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a section of keys",
    "model": "a section of keys",
    "path": "a path",
}
"""What a value should be, by the beginning of pydantic's name for the mistake."""


class SeveralMistakes(ValueError):
    """Several errors that one check has found."""

    def __init__(self, errors: Sequence[VoldError]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = tuple(errors)


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong: where, and what an error says of it."""

    keys: Keys
    what: str
    got: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Written:
    """Where the values of a recipe come from.

    Attributes:
        where: the file, or what stands in its place.
        text: the file's text.
        overrides: `key.path=value` of the command line.
        known: mistakes that the file has without these.
    """

    where: str
    text: str = ""
    overrides: tuple[str, ...] = ()
    known: frozenset[Mistake] = frozenset()

    def place(self, mistake: Mistake) -> str:
        """Whose mistake it is: the override's, or the file's with line and column."""
        key = ".".join(map(str, mistake.keys))
        given = [tuple(item.partition("=")[0].strip().split(".")) for item in self.overrides]
        keys = tuple(map(str, mistake.keys))
        if any(keys[: len(one)] == one for one in given):
            return f"command line: {key}"
        if self.overrides and mistake not in self.known:
            inside = [
                item for item, one in zip(self.overrides, given, strict=True) if keys and one[: len(keys)] == keys
            ]
            return f"command line: {' '.join(inside or self.overrides)}"
        at = ":".join(map(str, (self.where, *place_of(self.text, mistake.keys))))
        return ": ".join(filter(None, [at, key]))


def place_of(text: str, keys: Keys) -> tuple[int, ...]:
    """Line and column (from 1) of YAML where a key stands, or the last of the sections it is in; none if none is there.

    Example:
        >>> place_of("run:\\n  dir: a\\nsft:\\n  steps: 0\\n", ("sft", "steps"))
        (4, 3)
    """
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return ()
    found: tuple[int, ...] = ()
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in reversed(node.value) if k.value == str(key)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            pair = (node.value[key], node.value[key])
        else:
            pair = None
        if pair is None:
            break
        mark, node = pair[0].start_mark, pair[1]
        found = (mark.line + 1, mark.column + 1)
    return found


def readable(found: Sequence[Mistake], written: Written) -> ConfigError:
    """All that is wrong with what was read from somewhere as one error."""
    if len(found) == 1:
        return ConfigError(found[0].what, where=written.place(found[0]), got=found[0].got, fix=found[0].fix)
    lines = []
    for number, one in enumerate(found, 1):
        lines += [f"{number}. {one.what}", f"   where: {written.place(one)}"]
        lines += [f"   got:   {one.got}"] if one.got else []
        lines += [f"   fix:   {one.fix}"] if one.fix else []
    listed = "".join(f"\n    {line}" for line in lines)
    return ConfigError(f"{len(found)} mistakes", where=written.where, got=listed, fix="mend each of them")


def mistakes_in(error: ValidationError, raw: object, root: type[BaseModel]) -> list[Mistake]:
    """Every mistake once, in the order of the sections."""
    found: dict[Keys, list[dict[str, Any]]] = {}
    out: list[Mistake] = []
    for one in error.errors(include_url=False):
        keys = _stripped(one, raw)
        cause = one.get("ctx", {}).get("error")
        if isinstance(cause, InvalidTaskSet):
            inner = mistakes_in(cause.error, _at(raw, keys), cause.section)
            out += [Mistake((*keys, *m.keys), m.what, m.got, m.fix) for m in inner]
        elif isinstance(cause, SeveralMistakes):
            out += [raised(e, raw, keys) for e in cause.errors]
        elif isinstance(cause, VoldError):
            out.append(raised(cause, raw, keys))
        elif (
            one["type"] != "too_short" or len(one["input"]) < one["ctx"]["min_length"]
        ):  # a wrong item is not a missing one
            found.setdefault(keys, []).append(dict(one))
    return [*out, *(_told(keys, errors, root) for keys, errors in found.items())]


def _stripped(error: Mapping[str, Any], raw: object) -> Keys:
    """Its place without what pydantic adds: the kind tried of several, and a mark for the key itself."""
    keys: list[str | int] = []
    for key in error["loc"]:
        inside = isinstance(raw, dict) and key in raw
        listed = isinstance(raw, list | tuple) and isinstance(key, int) and key < len(raw)
        if not inside and not listed:
            return (*keys, key) if error["type"] == "missing" and isinstance(raw, dict) else tuple(keys)
        raw = raw[key]  # type: ignore[index]
        keys.append(key)
    return tuple(keys)


def _at(raw: object, keys: Keys) -> object:
    for key in keys:
        raw = raw[key]  # type: ignore[index]
    return raw


def raised(error: VoldError, raw: object, keys: Keys = ()) -> Mistake:
    """An error that a section raised itself. Its `where` is a key of the section, or of the whole recipe."""
    section = _at(raw, keys)
    if not keys and error.where:
        keys = tuple(error.where.split("."))
    elif isinstance(section, dict) and error.where in section:
        keys = (*keys, error.where)
    return Mistake(keys, error.what, error.got, error.fix)


def _told(keys: Keys, errors: Sequence[Mapping[str, Any]], root: type[BaseModel]) -> Mistake:
    """Pydantic's errors about one value, of which there are several where it could be of several kinds."""
    kind, value = errors[0]["type"], errors[0]["input"]
    if kind == "extra_forbidden":
        known = known_keys(root, keys[:-1])
        close = close_to(keys[-1], known)
        fix = f"did you mean {close!r}?" if close else f"known keys here: {', '.join(known)}"
        return Mistake(keys, f"unknown key {keys[-1]!r}", fix=fix)
    info = field_at(root, keys)
    if kind == "missing":
        return Mistake(keys, "field required: this key has no default", fix=f"give it {_described(info)}")
    if kind == "value_error":
        return Mistake(keys, errors[0]["msg"].removeprefix("Value error, "))
    if kind == "too_short":
        return Mistake(keys, f"should hold at least {errors[0]['ctx']['min_length']}", _short(value), "add to it")
    if value is None:
        return Mistake(keys, "this key has no value", "null", f"give it {_described(info)}")
    literals = [re.findall(r"'([^']*)'", e["ctx"]["expected"]) for e in errors if e["type"] == "literal_error"]
    choices = [word for words in literals for word in words]
    if choices and (len(errors) == 1 or isinstance(value, str)):
        close = close_to(value, choices)
        hint = f"did you mean {close!r}? " if close else ""
        return Mistake(keys, "there is no such choice", _short(value), f"{hint}{_described(info)}")
    told = errors[0]["msg"].removeprefix("Input ").removeprefix("Value ")
    wanted = WANTED.get(kind) or WANTED.get(kind.partition("_")[0])
    return Mistake(keys, f"should be {wanted}" if wanted else told, _short(value), _cure(value, wanted, info))


def _cure(value: object, wanted: str | None, info: FieldInfo | None) -> str:
    """What to write in place of a value of another kind."""
    if wanted == "a list" and isinstance(value, str | int | float):
        return f"write [{value}]"
    if wanted == "text" and isinstance(value, bool | int | float):
        return f"put it in quotes: '{value}'"
    if wanted == "a whole number":
        try:
            return f"write {int(float(str(value)))}, or another whole number"
        except (ValueError, OverflowError):
            pass
    return f"give it {_described(info)}"


def _described(info: FieldInfo | None) -> str:
    """What a key takes, as far as its annotation tells.

    Example:
        >>> from vold.run.stage_sections import Sft
        >>> _described(Sft.model_fields["checkpoint_every"])
        'a whole number above 0; the default is 100'
    """
    if info is None:
        return "a value of the right kind"
    kinds = " or ".join(dict.fromkeys(_kinds(info.annotation)))
    signs = {"gt": "above", "ge": "from", "lt": "below", "le": "at most"}
    bounds = [
        f" {word} {limit:g}"
        for m in info.metadata
        for s, word in signs.items()
        if (limit := getattr(m, s, None)) is not None
    ]
    usual = info.get_default() if not info.is_required() else None
    default = f"; the default is {usual}" if isinstance(usual, str | int | float) else ""
    return (kinds or "a value") + ",".join(bounds) + default


def _kinds(annotation: Any) -> Iterator[str]:
    """What values of an annotation are called."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        yield f"one of {', '.join(map(str, args))}"
    elif origin in (tuple, list):
        yield " of ".join(
            ["a list", *dict.fromkeys(kind for inner in args if get_origin(inner) is Literal for kind in _kinds(inner))]
        )
    elif origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        yield "a section of keys"
    elif args:
        for inner in args:
            yield from _kinds(inner)
    elif annotation is Path:
        yield "a path"
    elif annotation in KINDS:
        yield KINDS[annotation]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def field_at(root: type[BaseModel], keys: Keys) -> FieldInfo | None:
    """The field that stands at a place of a section, of an item the list's; None where it cannot be told."""
    while keys and isinstance(keys[-1], int):
        keys = keys[:-1]
    models: list[type[BaseModel]] = _models_at(root, keys[:-1])
    found = [m.model_fields[str(keys[-1])] for m in models if keys and str(keys[-1]) in m.model_fields]
    return found[0] if found else None


def known_keys(root: type[BaseModel], keys: Keys) -> list[str]:
    """Keys that a section takes at a place below it."""
    return sorted({name for m in _models_at(root, keys) for name in m.model_fields})


def _models_at(root: type[BaseModel], keys: Keys) -> list[type[BaseModel]]:
    """The sections that can stand at a place, walked through annotations; names and places in lists are passed by."""
    models = [root]
    for key in keys:
        infos = [m.model_fields[str(key)] for m in models if str(key) in m.model_fields]
        models = [m for info in infos for m in models_in(info.annotation)] or models
    return models


def no_section(recipe: BaseModel, name: str) -> ConfigError:
    """What is said where a verb's section is not there: the least of it that would be."""
    (section,) = models_in(type(recipe).model_fields[name].annotation)
    keys = ", ".join(f"{key}: ..." for key, info in section.model_fields.items() if info.is_required())
    fix = f"add `{name}: {{{keys}}}` to the recipe; docs/reference.md has all of its keys"
    return ConfigError(f"this recipe has no `{name}` section", where=name, fix=fix)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that an annotation can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in getattr(annotation, "__args__", ()) for m in models_in(a)]
