"""Move reasoning from a text-only teacher LLM into a vision-language student.

    import vold

    recipe = vold.load_recipe("demo")
    vold.traces(recipe), vold.sft(recipe), vold.distill(recipe)
    vold.evaluate(recipe).stages["vold"]["image"].accuracy
    vold.Run("runs/demo").metrics("distill")[-1].reward

Importing this package is cheap: a name is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vold.evals.evaluate import evaluate
    from vold.evals.overlap import align
    from vold.objective import Objective, credit, total
    from vold.run.recipe import load_recipe
    from vold.run.view import Run
    from vold.training.distill import distill
    from vold.training.sft import sft
    from vold.training.traces import make_traces as traces

__version__ = "0.1.0"

__all__ = ["Objective", "Run", "align", "credit", "distill", "evaluate", "load_recipe", "sft", "total", "traces"]

_HOMES = {
    "Objective": "vold.objective:Objective",
    "Run": "vold.run.view:Run",
    "align": "vold.evals.overlap:align",
    "credit": "vold.objective:credit",
    "distill": "vold.training.distill:distill",
    "evaluate": "vold.evals.evaluate:evaluate",
    "load_recipe": "vold.run.recipe:load_recipe",
    "sft": "vold.training.sft:sft",
    "total": "vold.objective:total",
    "traces": "vold.training.traces:make_traces",
}


if not TYPE_CHECKING:  # or a type checker would let any name pass

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, attribute = _HOMES[name].partition(":")
        return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
