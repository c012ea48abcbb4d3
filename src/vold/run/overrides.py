"""A recipe's text: `key.path=value` overrides, and pydantic's errors in a user's words."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from vold.errors import ConfigError, VoldError
from vold.run.task_sections import InvalidTaskSet
from vold.run.yaml_text import parse_yaml

if TYPE_CHECKING:
    from pydantic import ValidationError


def override(raw: dict[str, Any], item: str) -> None:
    """Apply one override to a nested dictionary.

    Raises:
        ConfigError: no assignment, no YAML, or a path through a value.
    """
    key, equals, text = item.partition("=")
    if not equals or not key.strip():
        raise ConfigError("an override reads key.path=value", where="command line", got=repr(item))
    value = parse_yaml(text, what=f"this value is not YAML: {text!r}", where=f"command line: {key}")
    node = raw
    *parents, last = key.strip().split(".")
    for i, part in enumerate(parents):
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if part == "tasks" and isinstance(node, str | list):
            new = ".".join(["tasks", *([node] if isinstance(node, str) else []), *parents[i + 1 :], last])
            raise ConfigError(
                "this key names task sets, which are written in the recipe's `tasks`",
                where=f"command line: {key}",
                got=item,
                fix=f"{new}={text}",
            )
        if not isinstance(node, dict):
            raise ConfigError(
                "this key holds a value, not a section", where=f"command line: {'.'.join(parents[: i + 1])}", got=item
            )
    if is_method(key) and node.get("method", "vold") != value:
        node.clear()
    node[last] = value


def is_method(key: str) -> bool:
    """Whether a key names the method of an objective."""
    return key.strip().endswith("objective.method")


def readable(error: ValidationError, where: str, root: type[BaseModel], above: tuple[str, ...] = ()) -> ConfigError:
    """The first of pydantic's errors as one of ours; `root` is the section that was read, `above` the keys it is under,
    none for the recipe itself."""
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    parts = [str(p) for p in first["loc"]]
    if isinstance(cause, InvalidTaskSet):
        return readable(cause.error, where, cause.section, (*above, *parts))
    key = ".".join([*above, *parts]) or getattr(cause, "where", "") or "recipe"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if isinstance(cause, VoldError):
        return ConfigError(cause.what + more, where=f"{where}: {key}", got=cause.got, fix=cause.fix)
    if first["type"] == "extra_forbidden":
        known = _known_keys(root, parts[:-1])
        close = difflib.get_close_matches(parts[-1], known, n=1, cutoff=0.5)
        fix = f"did you mean {close[0]!r}?" if close else f"known keys here: {', '.join(known)}"
        return ConfigError(f"unknown key {parts[-1]!r}{more}", where=f"{where}: {key}", fix=fix)
    got = "" if first["type"] in ("missing", "value_error") else repr(first["input"])
    message = first["msg"].removeprefix("Value error, ")
    return ConfigError(message[:1].lower() + message[1:] + more, where=f"{where}: {key}", got=got)


def _known_keys(root: type[BaseModel], path: list[str]) -> list[str]:
    """Keys a recipe accepts at a dotted path, walked through the models' annotations."""
    models: list[Any] = [root]
    for part in path:
        found: list[Any] = []
        for model in models:
            info = model.model_fields.get(part)
            if info is not None:
                found += models_in(info.annotation)
        models = found or models
    return sorted({name for m in models for name in m.model_fields})


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that an annotation can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in getattr(annotation, "__args__", ()) for m in models_in(a)]
