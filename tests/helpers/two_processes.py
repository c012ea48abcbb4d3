"""Started by torchrun: runs stages of several recipes in turn. Arguments: STAGE=RECIPE.yaml ..."""

from __future__ import annotations

import sys

import torch

from vold.run.recipe import load_recipe
from vold.training.distill import distill
from vold.training.sft import sft

if __name__ == "__main__":
    torch.set_num_threads(1)
    for job in sys.argv[1:]:
        stage, _, file = job.partition("=")
        {"sft": sft, "distill": distill}[stage](load_recipe(file))
