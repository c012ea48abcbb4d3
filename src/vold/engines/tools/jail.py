"""Runs one untrusted program. Started as a script of its own by `vold.engines.tools.interpreter`; nothing imports it.

Reads a JSON object from standard input: `program`, `scratch` and the limits. Before the program is compiled this
process gives up, for good, all it will not need. The kernel enforces it, also against native code and raw system calls:

1. namespaces, where the kernel grants them: no network device, no other process in sight, a scratch folder in memory
   with a size limit. Where it does not, nothing can be written at all;
2. capabilities: all of them, also those of root and of a user namespace;
3. resource limits: CPU seconds, memory, file size, open files, threads, no core dumps;
4. Landlock: files can be read below the interpreter's own folders and the scratch folder, and nowhere else;
5. seccomp: the system calls Python computes with, and no others: no sockets, no processes, no signals to others.

If one of 2 to 5 fails, the program is not run. Only the standard library is imported here.
"""

import atexit
import bisect
import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import sys
import traceback
from _ast import Expr, Expression, Module, PyCF_ONLY_AST  # `ast` loads much more; this is done for every program

NOT_ISOLATED = 97
"""Exit status: the program was not run, because this process could not be shut in."""

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = (
    1, 22, 24, 28, 38, 47,
)  # fmt: skip
AMBIENT_CLEAR_ALL, CAPABILITY_VERSION_3 = 4, 0x20080522
SECURE_BITS = 0b11101111  # root and a changed user id give no capability, none can be kept or raised; all locked
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 16384, 1 << 18
# user, mount, process id, network, IPC, host name
NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000

LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
READ = (1 << 2) | (1 << 3)  # read file, read folder
SCRATCH = READ | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 14  # write, remove, make folder and file, truncate
OLDEST_LANDLOCK = 3  # older ones let any file be emptied: `truncate`, and `open` to read with O_TRUNC
FILE_RIGHTS = {3: 15, 4: 15}  # by Landlock version; from 5 on 16

ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
EPERM, ENOSYS = 1, 38
LOAD, JUMP_EQUAL, JUMP_SET, RETURN = 0x20, 0x15, 0x45, 0x06
FIRST, SECOND, THIRD = 16, 24, 32  # where a filter finds the low halves of a call's arguments
CLONE_THREAD = 0x10000
THREAD_FLAGS = 0x7D0F00  # what the C libraries make a thread with: no namespace, no tracing, no process id as a file
THREADS = 32
"""Threads of a program at a time beside its first."""

IOCTLS = (0x5401, 0x541B, 0x5451, 0x5450)  # is it a terminal, how much to read, close on exec or not
FCNTLS = (0, 1030, 1, 2, 3)  # F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL; all others reach further
F_SETFL, O_ASYNC = 4, 0x2000  # flags, but for the one that sends signals

# Architecture's tag in a filter, and the numbers of calls there; what a machine lacks is absent.
MACHINES = {
    "x86_64": (
        0xC000003E,
        "read 0 write 1 open 2 close 3 stat 4 fstat 5 lstat 6 poll 7 lseek 8 mmap 9 mprotect 10 munmap 11 brk 12 "
        "rt_sigaction 13 rt_sigprocmask 14 rt_sigreturn 15 pread64 17 pwrite64 18 readv 19 writev 20 access 21 pipe 22 "
        "select 23 sched_yield 24 mremap 25 madvise 28 dup 32 dup2 33 nanosleep 35 getpid 39 exit 60 uname 63 "
        "fsync 74 fdatasync 75 ftruncate 77 getdents 78 getcwd 79 chdir 80 rename 82 mkdir 83 rmdir 84 "
        "creat 85 unlink 87 readlink 89 gettimeofday 96 getrlimit 97 getrusage 98 sysinfo 99 times 100 getuid 102 "
        "getgid 104 geteuid 107 getegid 108 getppid 110 sigaltstack 131 statfs 137 fstatfs 138 arch_prctl 158 "
        "gettid 186 time 201 futex 202 sched_getaffinity 204 getdents64 217 set_tid_address 218 clock_gettime 228 "
        "clock_getres 229 clock_nanosleep 230 exit_group 231 openat 257 mkdirat 258 newfstatat 262 unlinkat 263 "
        "renameat 264 readlinkat 267 faccessat 269 pselect6 270 ppoll 271 set_robust_list 273 dup3 292 pipe2 293 "
        "renameat2 316 getrandom 318 membarrier 324 statx 332 rseq 334 faccessat2 439",
        {"clone": 56, "clone3": 435, "kill": 62, "tgkill": 234, "ioctl": 16, "fcntl": 72},
    ),
    "aarch64": (
        0xC00000B7,
        "getcwd 17 dup 23 dup3 24 mkdirat 34 unlinkat 35 renameat 38 statfs 43 fstatfs 44 "
        "ftruncate 46 faccessat 48 chdir 49 openat 56 close 57 pipe2 59 getdents64 61 lseek 62 read 63 write 64 "
        "readv 65 writev 66 pread64 67 pwrite64 68 pselect6 72 ppoll 73 readlinkat 78 newfstatat 79 fstat 80 fsync 82 "
        "fdatasync 83 exit 93 exit_group 94 set_tid_address 96 futex 98 set_robust_list 99 nanosleep 101 "
        "clock_gettime 113 clock_getres 114 clock_nanosleep 115 sched_getaffinity 123 sched_yield 124 sigaltstack 132 "
        "rt_sigaction 134 rt_sigprocmask 135 rt_sigreturn 139 times 153 uname 160 getrlimit 163 getrusage 165 "
        "gettimeofday 169 getpid 172 getppid 173 getuid 174 geteuid 175 getgid 176 getegid 177 gettid 178 sysinfo 179 "
        "brk 214 munmap 215 mremap 216 mmap 222 mprotect 226 madvise 233 renameat2 276 getrandom 278 membarrier 283 "
        "statx 291 rseq 293 faccessat2 439",
        {"clone": 220, "clone3": 435, "kill": 129, "tgkill": 131, "ioctl": 29, "fcntl": 25},
    ),
}

libc = ctypes.CDLL(None, use_errno=True)


def call(result: int, what: str) -> int:
    """The result of a C function, or OSError."""
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def leave_root() -> bool:
    """The kernel counts no threads of root: take a real user id that nobody has. Files are read as before.

    Returns False, with nothing changed, for others than root and where it is not allowed.
    """
    if os.geteuid() != 0:
        return False
    try:
        handle = os.open("/proc/self/uid_map", os.O_RDONLY)
        first, _, size = map(int, os.read(handle, 1 << 16).splitlines()[-1].split())
        os.close(handle)
        os.setresuid(first + size - 2 - os.getpid() % max(1, size // 2), -1, -1)
    except OSError:
        return False
    return True


def enter_namespaces(scratch: str, megabytes: int) -> bool:
    """Leave the host's network, processes and mounts behind. The caller then is process 1 of its own world.

    Returns False, with nothing changed, where the kernel refuses.
    """
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(NAMESPACES) != 0:
        return False
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{file}", "w") as f:
            f.write(text)
    child = os.fork()  # the new process namespace begins with the next child
    if child:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    call(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    call(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount")
    options = f"size={megabytes}m,nr_inodes=1024,mode=700".encode()
    call(libc.mount(b"tmpfs", scratch.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options), "mount")
    return True


def drop_capabilities() -> None:
    """No capability, and none to come back: not for a thread, nor for a program that is started."""
    libc.prctl(PR_CAP_AMBIENT, AMBIENT_CLEAR_ALL, 0, 0, 0)
    # These two take a capability themselves: who has none has nothing to lose.
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_SET_SECUREBITS, SECURE_BITS, 0, 0, 0)
    call(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    call(libc.capset(struct.pack("Ii", CAPABILITY_VERSION_3, 0), bytes(24)), "capset")


def limit_threads(most: int, alone: bool) -> None:
    """A limit on threads. The kernel holds it against all of the user's, so those that are there come on top.

    Args:
        most: threads beside this one.
        alone: nobody but this process, and perhaps its parent, counts: their user or their namespace is new.

    Raises:
        OSError: there is no limit for this user.
    """
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    ceiling = 1 << 22 if hard == resource.RLIM_INFINITY else hard

    def admits(limit: int) -> bool:
        resource.setrlimit(resource.RLIMIT_NPROC, (limit, hard))
        try:
            child = os.fork()
        except BlockingIOError:
            return False
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        return True

    if admits(0):
        raise OSError("threads of root cannot be limited; run as another user or with CAP_SETUID")
    here = 2
    if not alone:
        high = 2
        while high < ceiling and not admits(high):
            high *= 2
        steps = range(high // 2, high, 8)  # a process is started for about half of what is tried
        here = [*steps, high][bisect.bisect_left(steps, True, key=admits)] - 1
    limit = min(here + most, ceiling)
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))


def limit_resources(seconds: int, megabytes: int, file_megabytes: int) -> None:
    """Limits that no later call can raise."""
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, megabytes << 20),
        (resource.RLIMIT_FSIZE, file_megabytes << 20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def restrict_files(readable: list[str], scratch: str, writable: bool) -> None:
    """Landlock: no file but those below the given folders."""
    version = call(libc.syscall(LANDLOCK_CREATE, None, 0, 1), "Landlock")
    if version < OLDEST_LANDLOCK:
        raise OSError(f"Landlock {version} lets a program empty files; {OLDEST_LANDLOCK} (Linux 6.2) does not")
    rights = (1 << FILE_RIGHTS.get(version, 16)) - 1
    network = 3 if version >= 4 else 0  # TCP: bind, connect
    scoped = 3 if version >= 6 else 0  # abstract sockets, signals
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    attributes = struct.pack("QQQ", rights, network, scoped)[:size]
    ruleset = call(libc.syscall(LANDLOCK_CREATE, attributes, size, 0), "Landlock")
    for path, access in [(p, READ) for p in readable] + [(scratch, SCRATCH if writable else READ)]:
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if not os.path.isdir(path):
            access = 1 << 2  # rights of folders are refused on a file
        rule = struct.pack("=Qi", access & rights, handle)
        call(libc.syscall(LANDLOCK_ADD, ruleset, 1, rule, 0), "Landlock")
        os.close(handle)
    call(libc.syscall(LANDLOCK_RESTRICT, ruleset, 0), "Landlock")
    os.close(ruleset)


def filter_program(machine: str, own: int) -> bytes:
    """The seccomp filter: calls of the list, threads, signals to `own` process id; all else is EPERM."""
    tag, plain, special = MACHINES[machine]
    words = plain.split()
    out = []

    def op(code: int, value: int, yes: int = 0, no: int = 0) -> None:
        out.append(struct.pack("HBBI", code, yes, no, value))

    op(LOAD, 4)  # the architecture
    op(JUMP_EQUAL, tag, 1, 0)
    op(RETURN, KILL)
    op(LOAD, 0)  # the call's number
    for number in map(int, words[1::2]):
        op(JUMP_EQUAL, number, 0, 1)
        op(RETURN, ALLOW)
    op(JUMP_EQUAL, special["clone3"], 0, 1)
    op(RETURN, ERRNO | ENOSYS)  # its flags are out of a filter's sight; the C library then uses `clone`
    op(JUMP_EQUAL, special["clone"], 0, 5)
    op(LOAD, FIRST)
    op(JUMP_SET, ~THREAD_FLAGS & 0xFFFFFFFF, 2, 0)
    op(JUMP_SET, CLONE_THREAD, 0, 1)
    op(RETURN, ALLOW)
    op(RETURN, ERRNO | EPERM)
    op(JUMP_EQUAL, special["fcntl"], 0, 7 + 2 * len(FCNTLS))
    op(LOAD, SECOND)
    for command in FCNTLS:
        op(JUMP_EQUAL, command, 0, 1)
        op(RETURN, ALLOW)
    op(JUMP_EQUAL, F_SETFL, 1, 0)
    op(RETURN, ERRNO | EPERM)
    op(LOAD, THIRD)
    op(JUMP_SET, O_ASYNC, 0, 1)
    op(RETURN, ERRNO | EPERM)
    op(RETURN, ALLOW)
    for name, argument, values in (("kill", FIRST, (own,)), ("tgkill", FIRST, (own,)), ("ioctl", SECOND, IOCTLS)):
        op(JUMP_EQUAL, special[name], 0, 2 + 2 * len(values))
        op(LOAD, argument)
        for value in values:
            op(JUMP_EQUAL, value, 0, 1)
            op(RETURN, ALLOW)
        op(RETURN, ERRNO | EPERM)
    op(RETURN, ERRNO | EPERM)
    return b"".join(out)


def restrict_calls() -> None:
    """Seccomp, from here on and for every thread to come."""
    code = filter_program(os.uname().machine, os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    call(libc.prctl(PR_SET_SECCOMP, 2, ctypes.c_char_p(header), 0, 0), "seccomp")


def run(program: str) -> int:
    """Run a program as a Python prompt would: the value of a last line that is an expression is printed."""
    space = {"__name__": "__main__"}
    try:
        tree = compile(program, "<program>", "exec", PyCF_ONLY_AST)
        assert isinstance(tree, Module)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], Expr) else None
        exec(compile(tree, "<program>", "exec"), space)
        if isinstance(last, Expr):
            value = eval(compile(Expression(last.value), "<program>", "eval"), space)
            if value is not None:
                print(repr(value))
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        # The frames of this file say nothing about the program.
        shown = error.__traceback__
        while shown is not None and shown.tb_frame.f_code.co_filename != "<program>":
            shown = shown.tb_next
        sys.stdout.flush()
        traceback.print_exception(type(error), error, shown, limit=-4)
        return 1
    return 0


def flush() -> None:
    """Hand over what was printed."""
    sys.stdout.flush()
    sys.stderr.flush()


def finish() -> None:
    """What Python does at a program's end: wait for its threads, then call what it registered."""
    wait = getattr(sys.modules.get("threading"), "_shutdown", flush)
    for step in (flush, wait, atexit._run_exitfuncs, flush):
        with contextlib.suppress(BaseException):  # whatever the program has done to them
            step()


def main() -> None:
    """Shut this process in, then run the program."""
    task = json.load(sys.stdin)
    try:
        os.close(0)
        os.open(os.devnull, os.O_RDONLY)  # is 0 again; what the task came in could be written to
        call(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        alone = leave_root()
        writable = task["namespaces"] and enter_namespaces(task["scratch"], task["scratch_mb"])
        os.chdir(task["scratch"])
        sys.path[:] = task["path"]
        drop_capabilities()
        limit_threads(THREADS, alone or writable)
        limit_resources(task["cpu_seconds"], task["memory_mb"], task["scratch_mb"])
        restrict_files(task["readable"], task["scratch"], writable)
        restrict_calls()
    except (OSError, KeyError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(NOT_ISOLATED)
    code = run(task["program"])
    finish()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    main()
