"""What `vold check` says of code of the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.engines.tools.environment import open_environment
from vold.engines.tools.mcp import McpTools
from vold.evals.subject import Finding
from vold.run.doors import named_in
from vold.types.named import source_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vold.evals.subject import Subject


def own_code(subject: Subject) -> Iterator[Finding]:
    """What the recipe names of the user's own, and what answers between turns."""
    recipe = subject.recipe
    recipe.run.refuse_missing_trackers()
    for name in sorted(set(named_in(recipe.model_dump(mode="json")))):
        yield Finding("own code", f"{name}, source {source_digest(name)}")
    if recipe.environment is not None:
        environment = open_environment(recipe.environment)
        yield Finding("environment", recipe.environment.words())
        if isinstance(environment, McpTools):
            environment.close()
