"""Tensors in one piece of memory or one file, laid out as safetensors: what two processes of a machine pass on.

There are names and numbers in it and nothing else, so whoever reads it runs nothing of the writer's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import secrets
import shutil
from functools import cache
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

from vold.errors import SamplerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Tensors = Mapping[str, torch.Tensor]

SHARED = Path("/dev/shm")
"""Where Linux shows shared memory by name."""
PREFIX = "vold-"
KINDS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""Names that safetensors has for element types."""


def header_of(tensors: Tensors) -> bytes:
    """The length of the table of tensors, and the table."""
    table, end = dict[str, object](), 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        table[name] = {"dtype": KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def fill(buffer: memoryview | mmap.mmap, header: bytes, tensors: Tensors) -> None:
    """Write a segment."""
    buffer[: len(header)] = header
    whole, place = torch.frombuffer(buffer, dtype=torch.uint8), len(header)
    for tensor in tensors.values():
        # From a GPU straight to where it is read.
        whole[place : place + tensor.nbytes].copy_(tensor.detach().contiguous().flatten().view(torch.uint8))
        place += tensor.nbytes


def reserve(file: int, size: int, where: Path) -> None:
    """Make a file this long, on blocks of its own. One that is longer than what is left could be mapped too, and the
    process would be killed as it writes.

    Raises:
        SamplerError: there is no room.
    """
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        raise SamplerError(
            "there is no room for the weights on their way to the servers",
            where=str(where),
            got=f"{error.strerror}: {size:,} bytes of {shutil.disk_usage(where).free:,} that are free",
            fix="give a container more (docker run --shm-size), or another directory: transfer: files, weights_dir",
        ) from error


def unguessable() -> str:
    """A name that nobody can guess and that tells whose it is."""
    return f"{PREFIX}{_machine()}-{os.getpid()}-{secrets.token_hex(16)}"


@cache
def _machine() -> str:
    """Where process numbers mean what they mean here: a directory may be seen from several machines."""
    here = f"{os.uname().nodename} {os.stat('/proc/self/ns/pid').st_ino}"
    return hashlib.blake2b(here.encode(), digest_size=4).hexdigest()


@contextlib.contextmanager
def in_shared_memory(tensors: Tensors) -> Iterator[Path]:
    """A segment of POSIX shared memory with these tensors, for this user alone; its name is gone afterwards. Raises
    as `reserve`.

    Where this process is killed, Python's resource tracker unlinks it; where that is killed as well, `sweep` does.
    """
    header, name = header_of(tensors), unguessable()
    size = len(header) + sum(t.nbytes for t in tensors.values())
    memory = SharedMemory(name, create=True, size=size)
    assert memory.buf is not None  # it is open
    try:
        with (SHARED / name).open("r+b") as file:
            reserve(file.fileno(), size, SHARED)
        fill(memory.buf, header, tensors)
        yield SHARED / name
    finally:
        with contextlib.suppress(BufferError):  # an error on the way keeps its frames, and views with them
            memory.close()
        memory.unlink()


@contextlib.contextmanager
def in_file(directory: Path, tensors: Tensors) -> Iterator[Path]:
    """A file of `directory` with these tensors, for this user alone; it is removed afterwards. Raises as
    `reserve`."""
    directory.mkdir(parents=True, exist_ok=True)
    header, path = header_of(tensors), directory.resolve() / f"{unguessable()}.safetensors"
    try:
        # Closed before it is read: until then another machine may see none of it.
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b") as file:
            reserve(file.fileno(), len(header) + sum(t.nbytes for t in tensors.values()), directory)
            with mmap.mmap(file.fileno(), 0) as buffer:
                fill(buffer, header, tensors)
        yield path
    finally:
        path.unlink(missing_ok=True)


def sweep(directory: Path) -> None:
    """Remove what processes of this user and machine have left that are no more, by the number in its name."""
    for path in directory.glob(f"{PREFIX}{_machine()}-[0-9]*-*"):
        number = path.name.split("-")[2]
        with contextlib.suppress(OSError):
            if number.isdigit() and path.lstat().st_uid == os.getuid() and not Path(f"/proc/{number}").exists():
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a segment or file, as views of it.

    Raises:
        OSError: it is not there, or for another user.
        SafetensorError: it is no such file.
    """
    return load_file(path)
