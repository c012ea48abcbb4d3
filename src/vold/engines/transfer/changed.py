"""Send a server those weights that it does not hold, and hold it to the checksums of what its model has loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from vold.errors import SamplerError
from vold.run.console import console

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from vold.engines.replies import VllmReply
    from vold.engines.transfer.carriers import Carrier
    from vold.engines.transfer.source import Source
    from vold.engines.vllm import VllmClient
    from vold.run.records import JsonObject

TRIES = 3
"""Times that a push is sent before it is given up."""
PART = 2**28
"""Bytes of tensors that are on their way at a time; one tensor may be larger."""
RPC = "/collective_rpc"
KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions of a server."""


class Held(NamedTuple):
    """What one worker of a server says of its weights.

    Attributes:
        checksums: by the name of a checkpoint.
        dtype: their precision.
        together: names of layers that its model makes one of, such as q_proj, k_proj and v_proj.
    """

    checksums: dict[str, str]
    dtype: torch.dtype
    together: list[list[str]]


class ChangedWeights:
    """Sends tensors that a server holds none or another of: after a step what was trained, to one that was restarted
    what its files do not have.

    Args:
        client: the servers; each runs `vold.engines.transfer.vllm_worker`.
        source: the student's weights.
        carrier: takes a part to the servers.
    """

    def __init__(self, client: VllmClient, source: Source, carrier: Carrier) -> None:
        self.client, self.source, self.carrier = client, source, carrier

    def forget(self) -> None:
        """The servers have lost all weights in sleep: they are to read the files that they were started with."""
        self.client.each(RPC, {"method": "vold_reload"}, root=True)

    def push(self, *, first: bool, fresh: bool = True) -> None:
        """Make every server hold the student's weights, or unless `fresh` those of the last push. Of several processes
        all call this, and the first sends.

        Raises:
            SamplerError: a server goes on refusing what it is sent, or cannot say what it has loaded.
        """
        if fresh:
            self.source.refresh()
        if not first:
            return
        found = self._held()
        mine = self.source.checksums(found[0][0].dtype)
        for _ in range(TRIES):
            wanted = whole_layers(_missing(mine, found), mine, found[0][0].together)
            if not wanted:
                return
            self._send(wanted, mine, found[0][0].dtype)
            wrong, found = self._refused(), self._held()
            left = sorted(_missing(mine, found))
            if not wrong and left:
                wrong = {left[0]: f"is one of {len(left)} that are not loaded as they were sent"}
            if not wrong:
                return
            name, why = next(iter(wrong.items()))
            console.print(f"the {self.client.server} did not take the weights: {name} {why}; sending them again")
        raise SamplerError(
            f"the {self.client.server} does not take the student's weights",
            where=", ".join(self.client.urls),
            got=f"after {TRIES} tries {name} {why}",
            fix="docs/engines.md says which way of `engine.transfer` goes where; `files` goes everywhere",
        )

    def _send(self, names: Collection[str], mine: Mapping[str, str], dtype: torch.dtype) -> None:
        """One try: a server that is restarted meanwhile knows nothing of this push, and would refuse the rest of it for
        ever. What it says it holds afterwards tells."""
        self.carrier.meet()
        self.client.each("/start_weight_update", root=True, must=False)
        for part in parts(self.source.tensors(names, dtype)):
            self.carrier.send(part, {n: mine[n] for n in part})
        self.client.each("/finish_weight_update", {}, root=True, must=False)

    def _held(self) -> list[list[Held]]:
        """Of every server, what its workers hold.

        Raises:
            SamplerError: one does not say, or they have several precisions.
        """
        found = [[_read_held(reply, one) for one in results] for reply, results in self._asked("vold_held")]
        if len(kinds := {h.dtype for server in found for h in server}) != 1:
            raise SamplerError(
                "rollout servers have several precisions", got=str(kinds), fix="start all with one --dtype"
            )
        return found

    def _refused(self) -> dict[str, str]:
        """Why workers did not load tensors of the last push, by name."""
        out = dict[str, str]()
        for reply, results in self._asked("vold_report"):
            for one in results:
                refused = one.get("refused")
                if not isinstance(refused, dict):
                    reply.fail(f"the {reply.server} does not say what became of its weights", got=str(one))
                out |= {str(n): f"at {reply.url} {why}" for n, why in refused.items()}
        return out

    def _asked(self, method: str) -> Iterator[tuple[VllmReply, list[JsonObject]]]:
        return asked(self.client, method)


def asked(client: VllmClient, method: str, **kwargs: object) -> Iterator[tuple[VllmReply, list[JsonObject]]]:
    """What each worker of each server answers to a question of `vllm_worker.Extension`.

    Raises:
        SamplerError: it is no object.
    """
    for reply in client.each(RPC, {"method": method, "kwargs": kwargs}, root=True):
        results = reply.value.get("results") if reply is not None else None
        if (
            reply is None
            or not isinstance(results, list)
            or not results
            or not all(isinstance(r, dict) for r in results)
        ):
            raise SamplerError(f"a {client.server} does not answer {method}", got=str(results)[:300])
        yield reply, results


def _read_held(reply: VllmReply, said: JsonObject) -> Held:
    checksums, dtype, together = (said.get(key) for key in ("held", "dtype", "together"))
    if not isinstance(checksums, dict) or not isinstance(together, list) or dtype not in KINDS:
        reply.fail(f"the {reply.server} does not say what weights it holds", got=str(said))
    return Held(dict(checksums), KINDS[dtype], list(together))


def _missing(mine: Mapping[str, str], found: Iterable[Iterable[Held]]) -> set[str]:
    """Names that some server holds nothing of, or something else: workers that share a model hold a part of it each."""
    out = set[str]()
    for server in found:
        said = [h.checksums for h in server]
        for name, checksum in mine.items():
            if {one[name] for one in said if name in one} != {checksum}:
                out.add(name)
    return out


def whole_layers(names: Collection[str], all_names: Iterable[str], together: Iterable[Collection[str]]) -> list[str]:
    """These names and those that a server can only load with them: of one layer, or of layers that it makes one of.

    Example:
        >>> every = ["a.q_proj.weight", "a.q_proj.bias", "a.k_proj.weight", "a.o_proj.weight"]
        >>> whole_layers(["a.k_proj.weight"], every, [["q_proj", "k_proj"]])
        ['a.q_proj.weight', 'a.q_proj.bias', 'a.k_proj.weight']
    """
    one_of = {name: "+".join(names) for names in together for name in names}

    def layer(name: str) -> str:
        above, _, own = name.rpartition(".")[0].rpartition(".")
        return f"{above}.{one_of.get(own, own)}"

    wanted = {layer(n) for n in names}
    return [n for n in all_names if layer(n) in wanted]


def parts(tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    """Tensors in portions of up to `PART` bytes."""
    part = dict[str, torch.Tensor]()
    for name, tensor in tensors:
        if part and sum(t.nbytes for t in part.values()) + tensor.nbytes > PART:
            yield part
            part = {}
        part[name] = tensor
    if part:
        yield part
