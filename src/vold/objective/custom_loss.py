"""Losses written by the user: estimators and whole terms, `my_module:function` in a recipe, checked at the start.

As masks and weights (`vold.objective.custom`): a plain Python function of an importable module, tried on made-up tokens
before any model is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vold.errors import ConfigError, TrainingError
from vold.objective.custom import NO_OPTIONS, load_function
from vold.objective.losses import SAMPLED

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from vold.objective.custom import FunctionOptions
    from vold.objective.loss import Streams


class SampledEstimator(Protocol):
    """D of every token from what student and teacher say of the sampled one, for `teacher_loss.estimator`."""

    def __call__(self, student_logp: Tensor, teacher_logp: Tensor, /) -> Tensor:
        """[tokens] values in nats from two [tokens] log-probs; the student's has a gradient. Tokens without a weight
        come as zeros, and a call may hold any part of a step's tokens: each value is of its own token alone."""
        ...


class TokenLoss(Protocol):
    """A loss of every token, for `own_loss.function`."""

    def __call__(self, streams: Streams, /) -> Tensor:
        """[tokens] values from the streams of whole rollouts, with a gradient through `streams.logp`. What is not asked
        for in a stream is NaN there."""
        ...


def estimator(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """An estimator on sampled tokens by its name, built in or the user's."""
    if name in SAMPLED:
        return SAMPLED[name]
    return lambda student, teacher: _values(name, {"student_logp": student, "teacher_logp": teacher}, student)


def token_loss(name: str, streams: Streams, options: FunctionOptions = NO_OPTIONS) -> Tensor:
    """The user's loss of every token [tokens].

    Raises:
        ConfigError: it cannot be loaded.
        TrainingError: it raised, or returned something else than `TokenLoss` says.
    """
    return _values(name, {"streams": streams}, streams.logp, options)


def try_estimator(name: str) -> None:
    """Load an estimator and call it on made-up tokens.

    Raises:
        ConfigError: it cannot be loaded, fails, or returns what a run could not use.
    """
    streams = _made_up()
    _try(name, lambda: estimator(name)(streams.logp, streams.teacher_logp), "SampledEstimator")


def try_token_loss(name: str, options: FunctionOptions = NO_OPTIONS) -> None:
    """Load a loss term and call it on made-up tokens. Raises: as `try_estimator`."""
    streams = _made_up()
    _try(name, lambda: token_loss(name, streams, options), "TokenLoss")


def _values(name: str, given: dict[str, object], like: Tensor, options: FunctionOptions = NO_OPTIONS) -> Tensor:
    function = load_function(name, options, tuple(given))
    try:
        found = function(*given.values(), **options)
    except Exception as error:
        raise TrainingError(
            "a function of the recipe failed", where=name, got=f"{type(error).__name__}: {error}"
        ) from error
    if getattr(found, "shape", None) != like.shape or not found.is_floating_point():
        got = f"{list(found.shape)}" if hasattr(found, "shape") else type(found).__name__
        raise TrainingError("a loss is one number a token", where=name, got=f"{got} for {list(like.shape)}")
    values: Tensor = found
    return values


def _try(name: str, call: Callable[[], Tensor], protocol: str) -> None:
    fix = f"see vold.objective.custom_loss.{protocol}"
    try:
        values = call()
    except TrainingError as error:
        got = f"{error.what}: {error.got}"
        raise ConfigError("this function fails on made-up tokens", where=name, got=got, fix=fix) from error
    if not bool(values.isfinite().all()) or not values.requires_grad:
        got = "no gradient" if not values.requires_grad else f"{values.detach().tolist()}"
        raise ConfigError("a loss is finite and has a gradient", where=name, got=got, fix=fix)


def _made_up() -> Streams:
    """Five tokens of two rollouts, all of which everybody has scored."""
    import torch

    from vold.objective.loss import Streams

    logp = torch.tensor([-0.1, -1.5, -0.3, -0.7, -2.0], requires_grad=True)
    theirs = torch.tensor([-0.2, -0.4, -0.9, -0.7, -3.0])
    return Streams(
        logp=logp,
        behaviour_logp=logp.detach().clone(),
        advantage=torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0]),
        teacher_logp=theirs,
        teacher_weight=torch.ones(5),
        sequence_index=torch.tensor([0, 0, 1, 1, 1]),
        sequence_length=torch.tensor([2, 2, 3, 3, 3]),
        reference_logp=theirs.clone(),
        entropy=torch.full((5,), 0.5),
    )
