"""What a machine or a library does to a run, in a user's words: full disks, missing permission, too little memory."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vold.errors import VoldError

if TYPE_CHECKING:
    from collections.abc import Iterator

AGAIN = "and repeat the command: it goes on from what is stored"
ELSEWHERE = f"correct the path in the recipe or on the command line, or mend the place {AGAIN}"

WORDS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("there is no room left on this disk", f"free space {AGAIN}"),
    errno.EDQUOT: ("the quota of this disk is used up", f"free space or have the quota raised, {AGAIN}"),
    errno.EFBIG: ("a file may not become as large as this", f"raise the limit (`ulimit -f unlimited`) {AGAIN}"),
    errno.EROFS: ("this place can only be read", "set a run.dir that can be written"),
    errno.EACCES: ("permission is missing", f"give this user the permission {AGAIN}, or set another path"),
    errno.EPERM: ("this is not permitted", f"give this user the permission {AGAIN}, or set another path"),
    errno.ENOENT: ("there is no such file or directory", ELSEWHERE),
    errno.ENOTDIR: ("a file stands where a directory is needed", ELSEWHERE),
    errno.EISDIR: ("a directory stands where a file is needed", ELSEWHERE),
    errno.EEXIST: ("something stands here already", ELSEWHERE),
    errno.ENAMETOOLONG: ("this name is too long for the file system", "choose a shorter name"),
    errno.ELOOP: ("links here lead in a circle", ELSEWHERE),
    errno.EMFILE: ("too many files are open", f"raise the limit (`ulimit -n 65536`) {AGAIN}"),
    errno.ENFILE: ("too many files are open on this machine", f"close other programs {AGAIN}"),
    errno.ENOMEM: ("the memory of this machine is used up", f"close other programs {AGAIN}"),
    errno.EAGAIN: ("no more processes or threads may be started", f"raise the limit (`ulimit -u`) {AGAIN}"),
    errno.EIO: ("the disk does not read or write", f"look at the disk or the network share {AGAIN}"),
    errno.ESTALE: ("the network share has lost this file", f"mount it again {AGAIN}"),
}
"""What is wrong and how to mend it, by the number that the system gives."""

NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|cannot allocate memory|bad_alloc", re.I)
LESS_MEMORY = (
    "close what else uses the memory and repeat the command. Or lower token_budget, max_new_tokens or the batch, set "
    "student.activation_checkpointing=true, dtype=bfloat16 or run.offload=true, or train student.lora: with another "
    "run.dir, as these make another run"
)


def in_words(error: BaseException) -> VoldError | None:
    """An error as one of ours; None for one that no user and no machine is known to cause: a fault of the program.

    What one error was raised from counts as well: libraries wrap the system's.
    """
    for one in _chain(error):
        if isinstance(one, VoldError):
            return one
        if found := _known(one):
            return found
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the machine or of its accelerator was not enough."""
    named = isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None
    return isinstance(error, MemoryError) or named


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        yield one
        seen.add(id(one))
        one = one.__cause__


def _known(error: BaseException) -> VoldError | None:
    text = (str(error).strip().splitlines() or [""])[0][:500]
    if is_out_of_memory(error):
        return VoldError("there is not enough memory", got=text, fix=LESS_MEMORY)
    if (number := _errno(error)) is not None:
        what, fix = WORDS.get(number, ("the system refuses", AGAIN.removeprefix("and ")))
        return VoldError(what, where=_where(error), got=text, fix=fix)
    if isinstance(error, OSError) or type(error).__module__.split(".")[0] in READERS:
        what = "a file cannot be read or written; it may be cut short or corrupt"
        return VoldError(what, where=_where(error), got=f"{type(error).__name__}: {text}", fix=ELSEWHERE)
    if type(error).__module__.startswith(COMPILER):
        fix = "set student.compile=false and repeat the command: it goes on from what is stored"
        return VoldError("PyTorch could not compile a layer", where="student.compile", got=text, fix=fix)
    for kind, sign, what, fix in MISTAKES:
        if isinstance(error, kind) and sign in str(error):
            return VoldError(what, where=_where(error), got=text, fix=fix)
    return None


READERS = frozenset({"safetensors", "safetensors_rust", "pyarrow", "zipfile", "zlib", "_lzma", "PIL"})
"""Modules whose own errors are about a file."""

COMPILER = ("torch._inductor", "torch._dynamo")
"""Where the errors of `torch.compile` come from."""

MISTAKES: tuple[tuple[type[Exception], str, str, str], ...] = (
    (ValueError, "embedded null", "a name holds the character NUL", "take it out of the recipe or the data"),
    (UnicodeEncodeError, "surrogates", "a name or a text holds half a character", "take it out of the recipe or data"),
    (RuntimeError, "Symlink loop", "links here lead in a circle", "remove one of them, or choose another path"),
    (RecursionError, "", "something is nested too deeply to be read", "look for a long run of brackets in the recipe, "
     "the data or a config.json"),
    (ImportError, "", "a package is missing or broken", "install the packages again: pip install -e ."),
)  # fmt: skip
"""Errors of the standard library by a word of their message."""


def _errno(error: BaseException) -> int | None:
    """The system's number of an error, whatever kept it: `OSError`, or a library's text."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    if told is not None:
        return int(told[1])
    return errno.ENOSPC if "No space left on device" in str(error) else None


def _where(error: BaseException) -> str:
    """The file that an error names; else the innermost path that our own code was at work on."""
    if isinstance(error, OSError) and error.filename is not None:
        return " -> ".join(str(f) for f in (error.filename, error.filename2) if f is not None)
    trace, found = error.__traceback__, ""
    while trace is not None:
        frame = trace.tb_frame
        if str(frame.f_globals.get("__name__", "")).startswith("vold."):
            found = next((str(v) for v in frame.f_locals.values() if isinstance(v, Path)), found)
        trace = trace.tb_next
    return found
