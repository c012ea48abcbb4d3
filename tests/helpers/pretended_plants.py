"""Uses of a device, legal and not, by name, for the pretended one to judge and to count (`pretended_cuda.run`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pretended_cuda.device import Event, counting

CARD = "cuda"


def card(*size: int) -> torch.Tensor:
    return torch.arange(1.0, 1 + torch.Size(size).numel(), device=CARD).view(size)


def host(*size: int) -> torch.Tensor:
    return card(*size).cpu()


def left_behind() -> torch.Tensor:
    """A weight whose numbers wait on the host, under the model's own parameter."""
    layer = torch.nn.Linear(3, 2).to(CARD)
    layer.weight.data = layer.weight.data.cpu()
    out: torch.Tensor = layer(card(1, 3))
    return out


def moved(dtype: torch.dtype) -> torch.Tensor:
    return torch.mm(card(2, 2).to(dtype), card(2, 2).to(dtype), out_dtype=torch.float32)


def summed() -> torch.Tensor:
    total = card(2, 2)
    return torch.addmm(total, card(2, 2).half(), card(2, 2).half(), out_dtype=torch.float32, out=total)


def optimised() -> torch.Tensor:
    """The optimizer's step count on the host, beside weights on the card."""
    weight = torch.nn.Parameter(card(2))
    weight.grad = card(2)
    optimizer = torch.optim.AdamW([weight], fused=True)
    optimizer.step()
    optimizer.state[weight]["step"] = optimizer.state[weight]["step"].cpu()
    optimizer.step()
    return weight


def drawn(device: str) -> torch.Tensor:
    return torch.multinomial(card(4), 1, generator=torch.Generator(device).manual_seed(1))


def put(index: torch.Tensor | slice, value: torch.Tensor) -> torch.Tensor:
    out = card(3)
    out[index] = value
    return out


def attended(grouped: bool) -> torch.Tensor:
    q, k = card(1, 2, 2, 4), card(1, 1, 2, 4)
    return torch.nn.functional.scaled_dot_product_attention(q, k, k, enable_gqa=grouped)


def flagged(*of: int, size: int = 3) -> torch.Tensor:
    return torch.tensor([i in of for i in range(size)])


USES: dict[str, Callable[[], Any]] = {
    # refused
    "host tensor in a sum": lambda: card(3) + host(3),
    "host tensor of one element in a sum": lambda: card(3) + host(1),
    "host tensor in a product": lambda: card(2, 2) @ host(2, 2),
    "host tensor in a concatenation": lambda: torch.cat([card(2), host(2)]),
    "host tensor in a choice": lambda: torch.where(card(3) > 1, card(3), host(3)),
    "host mask in a choice": lambda: torch.where(flagged(1), card(3), card(3)),
    "host mask to fill by": lambda: card(3).masked_fill(flagged(1), 0.0),
    "host ids to look up": lambda: torch.nn.functional.embedding(torch.tensor([1]), card(3, 2)),
    "host ids to gather by": lambda: card(3).gather(0, torch.tensor([1])),
    "host number to gather by": lambda: card(3).gather(0, torch.tensor(1)),
    "host tensor to write into": lambda: host(3).add_(card(3)),
    "host tensor as out": lambda: torch.add(card(3), 1, out=host(3)),
    "card index of a host tensor": lambda: host(3)[torch.tensor([1], device=CARD)],
    "card mask of a host tensor": lambda: host(3)[flagged(1).to(CARD)],
    "host values written by a card index": lambda: put(torch.tensor([0, 1], device=CARD), host(2)),
    "host values written by a host index": lambda: put(torch.tensor([0, 1]), host(2)),
    "difference of card and host log-probs": lambda: card(3).double() - host(3).double(),
    "numpy of a card tensor": lambda: card(3).numpy(),
    "generator of the host": lambda: drawn("cpu"),
    "random numbers by a host generator": lambda: torch.rand(3, device=CARD, generator=torch.Generator()),
    "weight left on the host": left_behind,
    "optimizer's step left on the host": optimised,
    "float32 factors with an output type": lambda: moved(torch.float32),
    "shared keys that nobody shares out": lambda: attended(False),
    # legal
    "host number in a sum": lambda: card(3) + torch.tensor(1.0),
    "card number in a sum": lambda: card(3) + card(1)[0],
    "host index of a card tensor": lambda: card(3)[torch.tensor([2, 0])],
    "host mask of a card tensor": lambda: card(3)[flagged(0, 2)],
    "host number written by a mask": lambda: put(flagged(1).to(CARD), torch.tensor(9.0)),
    "host tensor copied in": lambda: card(3).copy_(host(3) * 2),
    "host values copied into a slice": lambda: put(slice(0, 2), host(2) * 2),
    "numpy of a copy": lambda: card(3).cpu().numpy(),
    "generator of the card": lambda: drawn(CARD),
    "bfloat16 factors, float32 out": lambda: moved(torch.bfloat16),
    "float16 factors added up in float32": summed,
    "shared keys": lambda: attended(True),
    "inference mode": lambda: torch.inference_mode()(lambda: torch.nn.Linear(3, 3).to(CARD)(card(1, 3)).view(-1))(),
}  # fmt: skip


def uses() -> dict[str, str | None]:
    """By the name of a use: what it was refused with, None where it passed."""
    found: dict[str, str | None] = {}
    for name, use in USES.items():
        try:
            use()
            found[name] = None
        except (RuntimeError, TypeError, AssertionError) as refused:
            found[name] = str(refused)
    return found


COUNTED: dict[str, Callable[[torch.Tensor], Any]] = {
    "number": lambda x: float(x.sum()),
    "truth": lambda x: bool((x > 0).all()),
    "list": lambda x: x.tolist(),
    "to the host": lambda x: x.cpu(),
    "to the host, going on": lambda x: x.to("cpu", non_blocking=True),
    "into pageable memory": lambda x: torch.empty(4).copy_(x, non_blocking=True),
    "to the card": lambda x: torch.ones(4).to(CARD),
    "to the card, going on": lambda x: torch.ones(4).to(CARD, non_blocking=True),
    "made on the card": lambda x: torch.zeros(4, device=CARD),
    "list made on the card": lambda x: torch.tensor([1, 2], device=CARD),
    "mask as index": lambda x: x[x > 1],
    "mask as place of a number": lambda x: x.__setitem__(x > 1, 0.0),
    "mask as place of values": lambda x: x.__setitem__(x > 0, torch.zeros(4, device=CARD)),
    "mask to fill by": lambda x: x.masked_fill(x > 1, 0.0),
    "ids as index": lambda x: x[torch.tensor([0, 1], device=CARD)],
    "host ids as index": lambda x: x[torch.tensor([0, 1])],
    "host mask as index": lambda x: x[flagged(1, 2, size=4)],
    "places": lambda x: x.nonzero(),
    "kinds": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "among few": lambda x: torch.isin(x, x[:2]),
    "among many": lambda x: torch.isin(x, torch.arange(99.0, device=CARD)),
    "repeated by a tensor": lambda x: x.repeat_interleave(x.long()),
    "repeated to a size": lambda x: x.repeat_interleave(x.long(), output_size=10),
    "sum": lambda x: (x * 2).sum(),
    "waited for": lambda x: torch.cuda.synchronize(),
}  # fmt: skip


def counts() -> dict[str, list[int]]:
    """By the name of a use: waits, bytes to the card and bytes to the host."""
    found = {}
    for name, use in COUNTED.items():
        x = card(4)
        with counting() as seen:
            use(x)
        total = seen.totals()
        found[name] = [total["waits"], total["to_card"], total["to_host"]]
    return found


def races() -> dict[str, list[float]]:
    """What is read of a copy that nobody has waited for, and after waiting."""
    copy = card(2).to("cpu", non_blocking=True)
    early = copy.tolist()
    Event().synchronize()
    return {"early": early, "late": copy.tolist()}


def memory() -> dict[str, int]:
    """Bytes in use: a tensor's, a view's, at the peak, after all are gone."""
    start = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    x = torch.zeros(1000, device=CARD)
    one = torch.cuda.memory_allocated() - start
    view = x[5:]
    viewed = torch.cuda.memory_allocated() - start
    del x
    kept = torch.cuda.memory_allocated() - start
    (view * 2).sum()
    peak = torch.cuda.max_memory_allocated() - start
    del view
    return {"one": one, "viewed": viewed, "kept": kept, "peak": peak, "gone": torch.cuda.memory_allocated() - start}


def plants() -> dict[str, Any]:
    """All of the above, in one process."""
    return {"uses": uses(), "counts": counts(), "races": races(), "memory": memory()}
