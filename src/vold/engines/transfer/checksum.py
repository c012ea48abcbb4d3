"""A checksum of a tensor's bytes, computed where the tensor lies: on a GPU nothing is copied for it.

It finds what goes wrong on a way: one wrong word of 32 bits always, any other damage but for one in 2^32. It is no
signature; docs/security.md says who could write weights at all.
"""

from __future__ import annotations

from functools import cache

import torch

WIDTH = 8192
"""Words of 32 bits that become one number of 64."""
ROWS = 512
"""So many of these at a time: 16 MiB of the tensor, and four times as much for the products."""


def checksum(tensor: torch.Tensor) -> str:
    """Of the bytes of a tensor in the order of its elements; the same on every device.

    Each word is multiplied by an odd number of its own, and the products are added up modulo 2^64, `WIDTH` at a time,
    until one sum is left (multilinear hashing, arXiv 1202.4961). An odd factor takes no difference of words to zero.

    Example:
        >>> checksum(torch.zeros(3)) == checksum(torch.zeros(3)), checksum(torch.zeros(3)) == checksum(torch.zeros(4))
        (True, False)
    """
    flat = tensor.detach().contiguous().flatten().view(torch.uint8)
    words = _whole(flat, 4).view(torch.int32)
    while True:
        rows = _whole(words, WIDTH).view(-1, WIDTH)
        sums = [(part * _factors(rows.device)).sum(1) for part in rows.split(ROWS)]
        if rows.shape[0] <= 1:
            return f"{int(sums[0].sum()) % 2**64:016x}-{flat.numel():x}"
        words = torch.cat(sums).view(torch.int32)


def _whole(flat: torch.Tensor, width: int) -> torch.Tensor:
    """With zeros at the end, up to a multiple of the width."""
    missing = -flat.numel() % width
    return torch.cat([flat, flat.new_zeros(missing)]) if missing else flat


@cache
def _factors(device: torch.device) -> torch.Tensor:
    """Odd numbers of 64 bits; a product with a word takes their type."""
    generator = torch.Generator().manual_seed(18)
    high, low = (torch.randint(2**32, (WIDTH,), generator=generator, dtype=torch.int64) for _ in range(2))
    return ((high << 32) | low | 1).to(device)
