"""`key.path=value` overrides of a recipe."""

from __future__ import annotations

from typing import Any

from vold.errors import ConfigError
from vold.run.yaml_text import parse_yaml


def override(raw: dict[str, Any], item: str) -> None:
    """Apply one override to a nested dictionary. What an alias of YAML has put into several places changes in one.

    Raises:
        ConfigError: no assignment, no YAML, or a path through a value.
    """
    key, equals, text = item.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            "an override reads key.path=value", where="command line", got=repr(item), fix="write run.dir=runs/mine, say"
        )
    value = parse_yaml(text, what=f"this value is not YAML: {text!r}", where=f"command line: {key}")
    node = raw
    *parents, last = key.strip().split(".")
    for i, part in enumerate(parents):
        if node.get(part) is None:
            node[part] = {}
        above, node = node, node[part]
        if part == "tasks" and isinstance(node, str | list):
            new = ".".join(["tasks", *([node] if isinstance(node, str) else []), *parents[i + 1 :], last])
            raise ConfigError(
                "this key names task sets, which are written in the recipe's `tasks`",
                where=f"command line: {key}",
                got=item,
                fix=f"{new}={text}",
            )
        if isinstance(node, dict):
            above[part] = node = dict(node)
        else:
            raise ConfigError(
                "this key holds a value, not a section",
                where=f"command line: {'.'.join(parents[: i + 1])}",
                got=item,
                fix=f"write {'.'.join(parents[: i + 1])}=VALUE",
            )
    if is_method(key) and node.get("method", "vold") != value:
        node.clear()
    node[last] = value


def is_method(key: str) -> bool:
    """Whether a key names the method of an objective."""
    return key.strip().endswith("objective.method")
