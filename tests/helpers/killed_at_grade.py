"""Distils until it kills itself before it grades its n-th rollout, in the thread that takes them up.

Arguments: a recipe, n."""

from __future__ import annotations

import sys

from killed import after, killer, write_states_at_once
from vold.engines.grade import grade
from vold.run.recipe import load_recipe
from vold.training import rollout
from vold.training.distill import distill

if __name__ == "__main__":
    write_states_at_once()
    vars(rollout)["grade"] = after(killer(int(sys.argv[2])), grade)
    distill(load_recipe(sys.argv[1]))
