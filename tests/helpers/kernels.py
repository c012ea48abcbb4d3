"""Started with Triton on its path: `interpret` compares the head's kernels with float64 in Triton's interpreter,
`compile` makes machine code of them for two GPUs that need not be there. Prints JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from vold.model.lm_head.logprobs import token_logprobs

TOKENS, WIDTH, VOCABULARY = 11, 16, 9001


def results(dtype: torch.dtype, banned: list[int], temperature: float, chunk: int, bias: bool) -> list[torch.Tensor]:
    """Log-prob, entropy, argmax, and the gradients of states, weight and bias for unequal upstream gradients."""
    draw = torch.Generator().manual_seed(3)
    hidden = torch.randn(TOKENS, WIDTH, generator=draw).to(dtype).requires_grad_()
    layer = torch.nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=dtype)
    layer.weight.data.copy_(torch.randn(VOCABULARY, WIDTH, generator=draw) * 0.3)
    layer.weight.data[17] *= 3
    layer.weight.data[8000] = layer.weight.data[17]  # two ids that are always equally likely
    hidden.data[4] = layer.weight.data[17]
    if bias:
        layer.bias.data.copy_(torch.randn(VOCABULARY, generator=draw))
        layer.bias.data[8000] = layer.bias.data[17]
    targets = torch.randint(20, VOCABULARY, (TOKENS,), generator=draw)
    upstream = torch.randn(TOKENS, generator=draw).to(torch.promote_types(dtype, torch.float32))
    logp, entropy, argmax = token_logprobs(
        hidden, layer, targets, banned=torch.tensor(banned, dtype=torch.int64), temperature=temperature,
        chunk_tokens=chunk,
    )  # fmt: skip
    (logp * upstream).sum().backward()
    grads = [hidden.grad, layer.weight.grad, *([layer.bias.grad] if bias else [])]
    return [logp.detach(), entropy, argmax, *(g for g in grads if g is not None)]


def interpret() -> list[dict[str, Any]]:
    """Largest differences from float64, which the kernels do not take."""
    out = list[dict[str, Any]]()
    for banned, temperature, chunk, bias in (([], 1.0, 64, False), ([2, 9000], 0.7, 4, True), ([5], 1.3, 1, False)):
        exact = results(torch.float64, banned, temperature, chunk, bias)
        assert "vold.model.lm_head.triton_kernels" not in sys.modules or out
        found = results(torch.float32, banned, temperature, chunk, bias)
        assert "vold.model.lm_head.triton_kernels" in sys.modules
        differences = [float((a.double() - b.double()).abs().max()) for a, b in zip(found, exact, strict=True)]
        out.append({"differences": differences, "tie": int(found[2][4])})
    return out


def compiled() -> dict[str, int]:
    """Bytes of machine code by kernel and compute capability."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from vold.model.lm_head import triton_kernels as head_kernels

    floats, ids, number = "*fp32", "*i64", "i32"
    signatures = {
        "_forward": [floats, ids, floats, ids, number, number],
        "_backward": [floats, ids, floats, floats, number, number],
    }
    sizes = {}
    for name, kinds in signatures.items():
        kernel = getattr(head_kernels, name)
        signature = dict(zip(kernel.arg_names, [*kinds, "constexpr"], strict=True))
        source = ASTSource(kernel, signature, constexprs={"BLOCK": head_kernels.BLOCK})
        for capability in (80, 90):
            made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
            sizes[f"{name} sm_{capability}"] = len(made.asm["cubin"])
    return sizes


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({"interpret": interpret, "compile": compiled}[sys.argv[1]]()))
