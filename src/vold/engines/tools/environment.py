"""Environments: what answers a rollout when the model has ended a turn. `kind` of a recipe's `environment` names one.

`python` is the interpreter of `vold.engines.tools.python`, `mcp` the tools of a server (`vold.engines.tools.mcp`), and
`my_module:MyEnvironment` a class or function of the user's own that is called with the section's `settings`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from vold.errors import SamplerError
from vold.types.named import is_named, made

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.run.environment_section import ToolEnvironment


class Turn(str):
    """The text of a turn that the model has ended, and what is known of its rollout.

    Attributes:
        task: the id of the task.
        before: earlier turns of the rollout with what the environment said to each.
        state: the rollout's own, empty at its first turn: whatever the environment wants to keep until its next one. A
            rollout is sampled from its first turn to its last in one process, so nothing of it is stored.

    Example:
        >>> turn = Turn("6 * 7 ?", task="t1", before=[("hello", "go on")])
        >>> turn.removesuffix(" ?"), turn.task, turn.before
        ('6 * 7', 't1', [('hello', 'go on')])
    """

    task: str
    before: Sequence[tuple[str, str]]
    state: dict[str, Any]
    _prompt: Callable[[], str]

    def __new__(
        cls,
        text: str,
        *,
        task: str = "",
        before: Sequence[tuple[str, str]] = (),
        state: dict[str, Any] | None = None,
        prompt: Callable[[], str] = str,
    ) -> Turn:
        """The text with what is known of it."""
        turn = super().__new__(cls, text)
        turn.task, turn.before, turn.state, turn._prompt = task, before, {} if state is None else state, prompt
        return turn

    @property
    def prompt(self) -> str:
        """The prompt as the model was given it, with the chat template's own tokens."""
        return self._prompt()


class Environment(Protocol):
    """Answers the turns of many rollouts, each by itself: rollouts come in any order and number.

    A run that is killed goes on to the same weights only if an answer depends on the rollout alone.
    """

    def observe(self, turns: Sequence[Turn]) -> Sequence[str | None]:
        """What follows each turn, None where the turn asks for nothing: then it was the rollout's last."""
        ...


def open_environment(spec: ToolEnvironment) -> Environment:
    """The environment of a recipe.

    Raises:
        ConfigError: this machine cannot shut a program in; or what `kind` names cannot be loaded or made.
    """
    if spec.kind == "python":
        from vold.engines.tools.interpreter import Limits
        from vold.engines.tools.python import PythonTool

        return PythonTool(spec.calls, Limits(seconds=spec.seconds, memory_mb=spec.memory_mb, output=spec.output))
    if is_named(spec.kind):
        found: Environment = made(spec.kind, {"settings": dict(spec.settings)}, ("observe",))
        return found
    from vold.engines.tools.mcp import McpTools

    return McpTools(spec.settings, seconds=spec.seconds, output=spec.output)


def observed(name: str, environment: Environment, turns: Sequence[Turn]) -> list[str | None]:
    """What an environment says to these turns.

    Raises:
        SamplerError: it fails, or says something else than a text or None to each.
    """
    try:
        said = environment.observe(turns)
    except Exception as error:  # whatever an environment of the user's raises
        if isinstance(error, SamplerError):
            raise
        got = f"{type(error).__name__}: {error}"
        raise SamplerError("the environment failed", where=name, got=got, fix="mend it; the run goes on") from error
    found = list(said) if isinstance(said, list | tuple) else None
    if found is None or len(found) != len(turns) or not all(one is None or isinstance(one, str) for one in found):
        got = type(said).__name__ if found is None else f"{len(found)} answers: {found!r:.100}"
        fix = "return a list with a text, or None, for each turn"
        raise SamplerError("the environment gives no answer to each turn", where=name, got=got, fix=fix)
    return found
