"""The batch file that runs a recipe under Slurm: one task a machine brings Ray together, and the run uses that."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vold.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.run.recipe import Recipe

SCRIPT = """\
#!/bin/bash
# {command}
# on {nodes} machines, {gpus} GPUs of each. Written by `vold cluster --slurm`; `sbatch` takes it.
# A job that has ended early is submitted again as it is, and goes on where it was.
# Options of the command line come before those of this file:
#   sbatch --time=12:00:00 --partition=NAME --account=NAME FILE
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
{gpus_per_node}\
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
# Two minutes before its time is over the run is told to stop.
#SBATCH --signal=B:TERM@120

set -euo pipefail
cd {directory}
python={python}
"$python" -c 'import ray, vold'

# Ray runs what it is told by whoever has this job's token; it has no dashboard.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \\n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0
# Machines that come up slowly are waited for.
export RAY_NUM_REDIS_GET_RETRIES=300 RAY_raylet_start_wait_time_s=600

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${{hosts%%$'\\n'*}}
port=$((20000 + SLURM_JOB_ID % 10000))
export python first port RAY_ADDRESS="$first:$port"

# One task a machine: the first starts Ray, the others join it when it is there.
srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --kill-on-bad-exit=0 bash -c '
    name="${{SLURMD_NODENAME:-$(hostname)}}"
    ray=("$python" -m ray.scripts.scripts start --block --node-name="$name" --num-gpus={gpus})
    if [ "$SLURM_PROCID" = 0 ]; then
        exec "${{ray[@]}}" --head --port="$port" --include-dashboard=false
    fi
    until (: < "/dev/tcp/$first/$port") 2> /dev/null; do sleep 1; done
    exec "${{ray[@]}}" --address="$RAY_ADDRESS"
' &
ray=$!
end() {{
    kill "$ray" 2> /dev/null || return 0
    for _ in {{1..60}}; do kill -0 "$ray" 2> /dev/null || return 0; sleep 0.5; done
    kill -KILL "$ray"
}}
trap end EXIT

until (: < "/dev/tcp/$first/$port") 2> /dev/null; do kill -0 "$ray"; sleep 1; done

# The run waits for the machines, places its servers and its processes on them, and ends them.
"$python" -m vold.cli {words} &
run=$!
trap 'kill -TERM "$run"; wait "$run"' TERM
wait "$run"
"""


def batch_script(recipe: Recipe, file: str, keys: Sequence[str]) -> str:
    """The text of the file.

    Args:
        recipe: which.
        file: where it is, as it was typed.
        keys: what was typed behind it.

    Raises:
        ConfigError: the recipe has no `cluster`.
    """
    if recipe.cluster is None:
        fix = "add `cluster: {nodes: 2, gpus: 8}`, or `cluster.nodes=2 cluster.gpus=8` to the command"
        raise ConfigError("this recipe is for one machine", where="cluster", got="none", fix=fix)
    nodes, gpus = recipe.cluster.nodes, recipe.cluster.gpus
    words = shlex.join(["run", file, *keys])
    return SCRIPT.format(
        command=f"vold {words}".replace("\n", " "),
        nodes=nodes,
        gpus=gpus,
        name=re.sub(r"[^\w.-]", "_", f"vold-{recipe.run.dir.name}"),
        gpus_per_node=f"#SBATCH --gpus-per-node={gpus}\n" * (gpus > 0),
        directory=shlex.quote(str(Path.cwd())),
        python=shlex.quote(sys.executable),
        words=words,
    )
