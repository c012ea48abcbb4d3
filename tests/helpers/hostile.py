"""Programs that try to get out of the sandbox, by what they are after.

One prints GOT where it got something, and `refused` at its end or an error's words where it did not. Names between @ stand for what
`jailed.Host` has: files, a port, processes. `raw` makes a system call by its numbers on x86_64 and aarch64.
"""

from __future__ import annotations

RAW = """
import ctypes, errno, os, platform
libc = ctypes.CDLL(None, use_errno=True)
room = ctypes.create_string_buffer(256)
def raw(name, x86, arm, *args):
    number = x86 if platform.machine() == "x86_64" else arm
    if number is None:
        return
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = libc.syscall(ctypes.c_long(number), *args)
    # The filter's own answers: any other error means that the kernel has looked at the call.
    if result >= 0 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
        print("GOT", name, result, errno.errorcode.get(ctypes.get_errno()))
"""

CALLS = """
accept:43:202 accept4:288:242 acct:163:89 add_key:248:217 adjtimex:159:171 alarm:37:- bind:49:200 bpf:321:280
capget:125:90 capset:126:91 chmod:90:- chown:92:- chroot:161:51 clock_adjtime:305:266 clock_settime:227:112
close_range:436:436 connect:42:203 copy_file_range:326:285 delete_module:176:106 epoll_create1:291:20 eventfd2:290:19
execve:59:221 execveat:322:281 fallocate:285:47 fanotify_init:300:262 fanotify_mark:301:263 fchdir:81:50 fchmod:91:52
fchmodat:268:53 fchmodat2:452:452 fchown:93:55 fchownat:260:54 fgetxattr:193:10 finit_module:313:273 flistxattr:196:13
flock:73:32 fork:57:- fremovexattr:199:16 fsconfig:431:431 fsetxattr:190:7 fsmount:432:432 fsopen:430:430
fspick:433:433 futimesat:261:- get_robust_list:274:100 getpgid:121:155 getpriority:140:141 getsid:124:156
getxattr:191:8 init_module:175:105 inotify_add_watch:254:27 inotify_init1:294:26 io_setup:206:0 io_submit:209:2
io_uring_enter:426:426 io_uring_register:427:427 io_uring_setup:425:425 ioperm:173:- iopl:172:- ioprio_set:251:30
kcmp:312:272 kexec_file_load:320:294 kexec_load:246:104 keyctl:250:219 landlock_add_rule:445:445
landlock_create_ruleset:444:444 landlock_restrict_self:446:446 lchown:94:- lgetxattr:192:9 link:86:- linkat:265:37
listen:50:201 listmount:458:458 listxattr:194:11 llistxattr:195:12 lookup_dcookie:212:18 lremovexattr:198:15
lsetxattr:189:6 mbind:237:235 memfd_create:319:279 memfd_secret:447:447 migrate_pages:256:238 mincore:27:232 mknod:133:-
mknodat:259:33 mlock:149:228 mlock2:325:284 mlockall:151:230 modify_ldt:154:- mount:165:40 mount_setattr:442:442
move_mount:429:429 move_pages:279:239 mq_notify:244:184 mq_open:240:180 mq_timedreceive:243:183 mq_timedsend:242:182
mq_unlink:241:181 msgctl:71:187 msgget:68:186 msgrcv:70:188 msgsnd:69:189 name_to_handle_at:303:264
open_by_handle_at:304:265 open_tree:428:428 openat2:437:437 pause:34:- perf_event_open:298:241 personality:135:92
pidfd_getfd:438:438 pidfd_open:434:434 pidfd_send_signal:424:424 pivot_root:155:41 pkey_alloc:330:289 prctl:157:167
preadv2:327:286 prlimit64:302:261 process_madvise:440:440 process_mrelease:448:448 process_vm_readv:310:270
process_vm_writev:311:271 ptrace:101:117 pwritev2:328:287 quotactl:179:60 quotactl_fd:443:443 reboot:169:142
recvfrom:45:207 recvmmsg:299:243 recvmsg:47:212 remap_file_pages:216:234 removexattr:197:14 request_key:249:218
rt_sigqueueinfo:129:138 rt_tgsigqueueinfo:297:240 sched_setaffinity:203:122 sched_setattr:314:274
sched_setparam:142:118 sched_setscheduler:144:119 seccomp:317:277 semctl:66:191 semget:64:190 semop:65:193
semtimedop:220:192 sendfile:40:71 sendmmsg:307:269 sendmsg:46:211 sendto:44:206 set_mempolicy:238:237
setdomainname:171:162 setfsgid:123:152 setfsuid:122:151 setgid:106:144 setgroups:116:159 sethostname:170:161
setitimer:38:103 setns:308:268 setpgid:109:154 setpriority:141:140 setregid:114:143 setresgid:119:149
setresuid:117:147 setreuid:113:145 setrlimit:160:164 setsid:112:157 setsockopt:54:208 settimeofday:164:170
setuid:105:146 setxattr:188:5 setxattrat:463:463 shmat:30:196 shmctl:31:195 shmget:29:194 signalfd4:289:74 socket:41:198
socketpair:53:199 splice:275:76 statmount:457:457 swapoff:168:225 swapon:167:224 symlink:88:- symlinkat:266:36
sync:162:81 sync_file_range:277:84 syncfs:306:267 syslog:103:116 tee:276:77 timer_create:222:107 timer_settime:223:110
timerfd_create:283:85 tkill:200:130 truncate:76:45 umask:95:166 umount2:166:39 unshare:272:97 uselib:134:-
userfaultfd:323:282 utime:132:- utimensat:280:88 utimes:235:- vfork:58:- vhangup:153:58 vmsplice:278:75 wait4:61:260
waitid:247:95
"""
"""System calls that no program needs, and their numbers on x86_64 and aarch64; - where there is none."""

FORBIDDEN = {
    name: tuple(None if number == "-" else int(number) for number in numbers)
    for name, *numbers in (entry.split(":") for entry in CALLS.split())
}

# Machine code for x86_64: a loop of `clone` that puts every thread on the same stack, as no library would.
THREAD_BOMB = (
    "4989f9b838000000bf000f050031d24531d20f054885c0740b780549ffc975e34c89c8c3488d3d0b00000031f6b8230000000f05ebee3c"
    + "00" * 15
)

SEND_SIGNALS = """
import fcntl, os, signal
r, w = os.pipe()
for request in (
    lambda: fcntl.fcntl(r, 10, signal.@SIGNAL@), lambda: fcntl.fcntl(r, 8, @TARGET@),
    lambda: fcntl.fcntl(r, 15, (1).to_bytes(4, "little") + (@TARGET@).to_bytes(4, "little", signed=True)),
    lambda: fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK),
    lambda: fcntl.ioctl(r, 0x5452, b"\\1\\0\\0\\0"), lambda: fcntl.ioctl(r, 0x8901, (@TARGET@).to_bytes(4, "little", signed=True)),
):
    try:
        request()
        print("GOT")
    except OSError as error:
        print("refused", error)
os.write(w, b"x")
"""

FCNTLS = """
import fcntl, os
r, w = os.pipe()
lock = b"\\0" * 64
for name, command, argument in (
    ("F_GETLK", 5, lock), ("F_SETLK", 6, lock), ("F_SETOWN", 8, 0), ("F_GETOWN", 9, 0), ("F_SETSIG", 10, 9),
    ("F_GETSIG", 11, 0), ("F_SETOWN_EX", 15, lock), ("F_GETOWN_EX", 16, lock), ("F_OFD_GETLK", 36, lock),
    ("F_OFD_SETLK", 37, lock), ("F_SETLEASE", 1024, 0), ("F_GETLEASE", 1025, 0), ("F_NOTIFY", 1026, 0),
    ("F_CANCELLK", 1029, 0), ("F_SETPIPE_SZ", 1031, 1 << 20), ("F_GETPIPE_SZ", 1032, 0), ("F_ADD_SEALS", 1033, 1),
    ("F_GET_SEALS", 1034, 0), ("F_SET_RW_HINT", 1036, lock), ("F_SET_FILE_RW_HINT", 1038, lock),
    ("F_SETFL and O_ASYNC", 4, os.O_ASYNC),
):
    try:
        print("GOT", name, fcntl.fcntl(r, command, argument))
    except PermissionError:
        print("refused", name)
"""

EACH = """
def each(*tries):
    for number, one in enumerate(tries):
        try:
            print("GOT", number, one())
        except OSError:
            pass
    print("refused")
"""


def raw(*calls: str) -> str:
    return RAW + "\n".join(f"raw({call})" for call in calls) + "\nprint('refused')"


def each(*tries: str, first: str = "") -> str:
    """Several tries in one program; none of them can help the next."""
    return f"import os, socket\n{EACH}{first}\neach({', '.join(f'lambda: {one}' for one in tries)})"


PROCESSES = {
    "fork bomb": "import os\nwhile True: os.fork()",
    "fork bomb that catches": "import os\nfor _ in range(10**4):\n  try: os.fork()\n  except OSError: pass\nprint('refused')",
    "fork in C": "import ctypes\nprint('GOT' if ctypes.CDLL(None).fork() >= 0 else 'refused')",
    "clone": raw(*(f"'clone {flags:#x}', 56, 220, {flags:#x}, 0, 0, 0, 0" for flags in (17, 0x4111, 0x8011, 0x100, 0x2011))),
    "clone3": raw("'clone3', 435, 435, room, 88", "'clone3 for a thread', 435, 435, room, 64"),
    "thread that takes a namespace along": raw(
        *(f"'clone {flags:#x}', 56, 220, {0x50F00 | flags:#x}, 0, 0, 0, 0"
          for flags in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x7E020000, 0x1000, 0x2000))
    ),
    "shell": "import os\nprint('GOT' if os.system('echo GOT') == 0 else 'refused')",
    "subprocess": "import subprocess\nprint(subprocess.check_output(['echo', 'GOT']))",
    "exec": each("os.execv('/bin/echo', ['echo', 'GOT'])", "os.posix_spawn('/bin/echo', ['echo', 'GOT'], {})"),
    "multiprocessing": "import multiprocessing as m\np = m.get_context('fork').Process(target=print, args=('GOT',))\np.start()\np.join()",
    "terminal": "import pty\nprint('GOT', pty.fork())",
    "daemon": "import os\nif os.fork() == 0:\n  os.setsid()\n  open('@OUTSIDE@/daemon', 'w').write('GOT')",
    "group of its own": raw("'setsid', 112, 157", "'setpgid', 109, 154, 0, 0"),
}  # fmt: skip

NETWORK = {
    "tcp": "import socket\nsocket.create_connection(('127.0.0.1', @PORT@))\nprint('GOT')",
    "tcp server": "import socket\nprint('GOT', socket.create_server(('127.0.0.1', 0)))",
    "udp": "import socket\nsocket.socket(2, 2).sendto(b'GOT', ('127.0.0.1', 53))\nprint('GOT')",
    "http": "import urllib.request\nprint('GOT', urllib.request.urlopen('http://127.0.0.1:@PORT@').read())",
    "abstract socket": "import socket\nsocket.socket(1).connect('\\0@ABSTRACT@')\nprint('GOT')",
    "named socket": "import socket\nsocket.socket(1).connect('@SOCKET@')\nprint('GOT')",
    "socket pair": "import socket\nprint('GOT', socket.socketpair())",
    "all families": each(*(f"socket.socket({family}, {kind})" for family in (1, 2, 10, 16, 17, 29, 31, 38, 40, 44) for kind in (1, 2, 3))),
    "name service": "import socket\nprint('GOT', socket.getaddrinfo('localhost', 80))",
}  # fmt: skip

READING = {
    "secret": "print(open('@SECRET_FILE@').read())",
    "files of the host": each(*(f"open('{file}', 'rb').read()" for file in (
        "/etc/passwd", "/etc/shadow", "@PROJECT@", "/proc/cpuinfo", "/proc/kallsyms", "/sys/kernel/notes", "/dev/zero",
        "/dev/urandom", "/dev/tty", "/dev/kmsg", "/dev/mem"))),
    "import of the project": "import sys\nsys.path.append('@PROJECT@'.rsplit('/vold/', 1)[0])\ntry:\n  import vold.errors\n  print('GOT')\nexcept ImportError: print('refused')",
    "environment": "import os\nprint(dict(os.environ))",
    "environment in memory": "import ctypes\nprint([ctypes.string_at(ctypes.c_char_p.in_dll(ctypes.CDLL(None), '__progname'))])\nprint(ctypes.CDLL(None).getenv(b'VOLD_TEST_KEY'))",
    "parent in /proc": each(*(f"open('/proc/@PARENT@/{file}', 'rb').read(1)" for file in ("environ", "mem", "maps", "cmdline", "status", "task/@PARENT@/environ", "root@SECRET_FILE@", *(f"fd/{n}" for n in range(12)))),
                            *(f"os.listdir('/proc/@PARENT@/{folder}')" for folder in ("fd", "root", "cwd", "task")),
                            *(f"os.readlink('/proc/@PARENT@/{link}')" for link in ("exe", "root", "cwd"))),
    "victim in /proc": each("open('/proc/@VICTIM@/mem', 'r+b')", "open('/proc/@VICTIM@/environ')", "open('/proc/@VICTIM@/oom_score_adj', 'w')", "os.readlink('/proc/@VICTIM@/exe')"),
    "itself in /proc": each(*(f"open('/proc/{file}', 'rb').read()" for file in ("self/environ", "self/mem", "self/root@SECRET_FILE@", "self/cwd/../..@SECRET_FILE@", "1/cmdline", "thread-self/environ")),
                            "os.open('/proc/self/fd/0', os.O_RDWR)"),
    "folders": each("os.listdir('/')", "os.listdir('/proc')", "os.listdir('/etc')", "os.listdir('@OUTSIDE@')", "os.listdir(os.path.dirname('@OUTSIDE@'))"),
    "symbolic link": "import os\nos.symlink('@SECRET_FILE@', 'x')\nprint(open('x').read())",
    "hard link": "import os\nos.link('@SECRET_FILE@', 'x')\nprint(open('x').read())",
    "dots": "print(open('../' * 20 + '@SECRET_FILE@'.lstrip('/')).read())",
    "from its folder": "import os\nos.chdir('@OUTSIDE@')\nprint(open('secret.txt').read())",
    "path handles": each("os.read(os.open('secret.txt', os.O_RDONLY, dir_fd=os.open('@OUTSIDE@', os.O_PATH)), 9)",
                         "open(f\"/proc/self/fd/{os.open('@SECRET_FILE@', os.O_PATH)}\").read()",
                         "os.fchdir(os.open('@OUTSIDE@', os.O_PATH))"),
    "files by number": raw("'open_by_handle_at', 304, 265, -100, room, 0", "'name_to_handle_at', 303, 264, -100, b'@SECRET_FILE@', room, room, 0", "'openat2', 437, 437, -100, b'@SECRET_FILE@', room, 24"),
    "inherited files": "import os\nfor n in range(3, 64):\n  try: print('GOT', n, os.read(n, 99))\n  except OSError: pass\nprint('refused')",
    "copies by the kernel": raw("'sendfile', 40, 71, 1, 0, 0, 9", "'splice', 275, 76, 0, 0, 1, 0, 9, 0", "'copy_file_range', 326, 285, 0, 0, 1, 0, 9, 0", "'tee', 276, 77, 0, 1, 9, 0", "'vmsplice', 278, 75, 1, room, 1, 0"),
    "watching files": raw("'inotify_init1', 294, 26, 0", "'inotify_add_watch', 254, 27, 0, b'/', 2", "'fanotify_init', 300, 262, 0, 0"),
}  # fmt: skip

WRITING = {
    "new files": each("open('@OUTSIDE@/new', 'w').write('GOT')", "os.mkdir('@OUTSIDE@/new')", "os.open('@OUTSIDE@', os.O_TMPFILE | os.O_RDWR)",
                      "open('@READABLE@/new', 'w')", "os.mkdir('@READABLE@/new')", "open('/tmp/vold-hostile-@PARENT@', 'w')", "open('/dev/shm/vold-hostile-@PARENT@', 'w')",
                      "os.open('@READABLE@', os.O_TMPFILE | os.O_RDWR)", "open('/dev/null', 'w')", "open('/proc/self/comm', 'w')"),
    "overwriting": each(*(f"open('{file}', '{mode}').write('GOT')" for file in ("@SECRET_FILE@", "@READABLE@/kept") for mode in ("w", "a", "r+", "x"))),
    "writing to the standard library": "import os\nopen(os.__file__, 'a').write('# x')\nprint('GOT')",
    "emptying": each(*(one.replace("FILE", file) for file in ("@SECRET_FILE@", "@READABLE@/kept") for one in (
        "os.truncate('FILE', 0)", "os.close(os.open('FILE', os.O_RDONLY | os.O_TRUNC))", "os.close(os.open('FILE', os.O_WRONLY | os.O_TRUNC))",
        "os.ftruncate(os.open('FILE', os.O_RDONLY), 0)", "os.close(os.open('FILE', os.O_CREAT | os.O_TRUNC))", "os.close(os.open('FILE', os.O_ACCMODE | os.O_TRUNC))"))),
    "emptying by raw calls": RAW + """
for file in (b'@SECRET_FILE@', b'@READABLE@/kept'):
    raw('truncate', 76, 45, file, 0)
    for x86, arm, args in ((85, None, (file, 0)), (2, None, (file, 0o1000)), (257, 56, (-100, file, 0o1000))):
        number = x86 if platform.machine() == 'x86_64' else arm
        if number is not None:
            args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
            print('GOT' if libc.syscall(ctypes.c_long(number), *args) >= 0 else 'refused')
""",
    "removing": each("os.remove('@SECRET_FILE@')", "os.remove('@READABLE@/kept')", "os.rmdir('@READABLE@')", "os.rmdir('@OUTSIDE@')"),
    "moving": each("os.rename('@SECRET_FILE@', 'x')", "os.rename('@SECRET_FILE@', '@OUTSIDE@/x')", "os.rename('@READABLE@/kept', '@READABLE@/x')",
                   "os.rename('@READABLE@/kept', 'x')", "os.replace('@READABLE@', '@OUTSIDE@/x')", first="\ntry: open('mine', 'w').write('x')\nexcept OSError: pass\n"),
    "moving in": each("os.rename('mine', '@OUTSIDE@/x')", "os.rename('mine', '@SECRET_FILE@')", "os.rename('mine', '@READABLE@/kept')", first="\ntry: open('mine', 'w').write('x')\nexcept OSError: pass\n"),
    "exchanging": RAW + "number = 316 if platform.machine() == 'x86_64' else 276\nfor a, b in ((b'@SECRET_FILE@', b'@READABLE@/kept'), (b'@READABLE@/kept', b'@SECRET_FILE@')):\n  for flags in (0, 1, 2, 4):\n    print('GOT' if libc.syscall(number, -100, a, -100, b, flags) >= 0 else 'refused')",
    "links": each("os.link('@SECRET_FILE@', '@OUTSIDE@/x')", "os.link('@READABLE@/kept', 'x')", "os.symlink('/', 'x')", "os.symlink('/', '@OUTSIDE@/x')"),
    "devices": each("os.mknod('x', 0o20666, 0x101)", "os.mknod('@OUTSIDE@/x')", "os.mkfifo('x')", "os.mkfifo('@OUTSIDE@/x')", "os.mknod('x', 0o60666, 0x800)"),
    "modes and owners": each(*(one.replace("FILE", file) for file in ("@SECRET_FILE@", "@READABLE@/kept") for one in (
        "os.chmod('FILE', 0o777)", "os.chown('FILE', 1, 1)", "os.lchown('FILE', 1, 1)", "os.fchmod(os.open('FILE', os.O_RDONLY), 0o777)")), "os.fchmod(1, 0o777)"),
    "times": each(*(f"os.utime('{file}', (1, 1))" for file in ("@SECRET_FILE@", "@READABLE@/kept")), "os.utime(0, (1, 1))"),
    "attributes": each("os.setxattr('@SECRET_FILE@', 'user.x', b'1')", "os.setxattr('@READABLE@/kept', 'user.x', b'1')", "os.getxattr('@SECRET_FILE@', 'user.x')",
                       "os.listxattr('@SECRET_FILE@')", "os.removexattr('@READABLE@/kept', 'user.x')", "os.setxattr(1, 'user.x', b'1')"),
    "what it was started with": each("os.write(0, b'x')", "os.ftruncate(0, 1 << 20)", "os.pwrite(0, b'x', 1 << 30)", "os.posix_fallocate(0, 0, 4096)"),
    "locks and leases": FCNTLS,
    "locks on files": each("fcntl.flock(os.open('@READABLE@/kept', os.O_RDONLY), 1)", "fcntl.lockf(os.open('@READABLE@/kept', os.O_RDONLY), 1)",
                           "fcntl.fcntl(os.open('@READABLE@', os.O_RDONLY), fcntl.F_NOTIFY, 2)", "fcntl.fcntl(os.open('@READABLE@/kept', os.O_RDONLY), fcntl.F_SETLEASE, 0)", first="\nimport fcntl\n"),
    "memory as a file": raw("'memfd_create', 319, 279, b'x', 0", "'memfd_secret', 447, 447, 0"),
}  # fmt: skip

OTHERS = {
    "kill": each(*(f"os.kill({who}, {signal})" for who in ("@PARENT@", "@VICTIM@", "-1", "0", "-os.getpid()", "-@PARENT@", "1 + os.getpid()") for signal in (9, 10, 0))),
    "kill of the group": "import os\nos.killpg(os.getpid(), 9)\nprint('GOT')",
    "kill of one thread": raw(*(f"'tgkill', 234, 131, @{who}@, @{who}@, {signal}" for who in ("PARENT", "VICTIM") for signal in (9, 10)), "'tkill', 200, 130, @VICTIM@, 9"),
    "queued signals": raw("'rt_sigqueueinfo', 129, 138, @VICTIM@, 9, room", "'rt_tgsigqueueinfo', 297, 240, @VICTIM@, @VICTIM@, 9, room"),
    "process files": raw("'pidfd_open', 434, 434, @VICTIM@, 0", "'pidfd_send_signal', 424, 424, 0, 9, 0, 0", "'pidfd_getfd', 438, 438, 0, 0, 0"),
    **{f"file that signals the {who} with {signal}": SEND_SIGNALS.replace("@TARGET@", target).replace("@SIGNAL@", signal)
       for who, target, signal in (("parent", "@PARENT@", "SIGKILL"), ("parent", "@PARENT@", "SIGUSR2"), ("parent", "@PARENT@", "SIGIO"), ("victim", "@VICTIM@", "SIGKILL"), ("group", "-@GROUP@", "SIGKILL"))},
    "timers": raw("'timer_create', 222, 107, 0, room, room", "'setitimer', 38, 103, 0, room, 0", "'alarm', 37, None, 1", "'timerfd_create', 283, 85, 0, 0", "'mq_notify', 244, 184, 0, room"),
    "death of the parent": raw("'prctl PDEATHSIG', 157, 167, 1, 0, 0, 0, 0", "'prctl DUMPABLE', 157, 167, 4, 1, 0, 0, 0", "'prctl PTRACER', 157, 167, 0x59616d61, -1, 0, 0, 0", "'prctl SUBREAPER', 157, 167, 36, 1, 0, 0, 0"),
    "tracing": raw(*(f"'ptrace', 101, 117, {request}, {who}, 0, 0" for request, who in ((16, "@VICTIM@"), (0x4206, "@VICTIM@"), (16, "@PARENT@"), (0, "0")))),
    "memory of others": raw("'process_vm_readv', 310, 270, @VICTIM@, room, 1, room, 1, 0", "'process_vm_writev', 311, 271, @VICTIM@, room, 1, room, 1, 0", "'process_madvise', 440, 440, 0, room, 1, 4, 0", "'process_mrelease', 448, 448, 0, 0", "'kcmp', 312, 272, @VICTIM@, @PARENT@, 0, 0, 0"),
    "priorities of others": raw("'setpriority', 141, 140, 0, @VICTIM@, 19", "'setpriority', 141, 140, 0, 0, -20", "'sched_setaffinity', 203, 122, @VICTIM@, 8, room", "'sched_setscheduler', 144, 119, @VICTIM@, 0, room", "'ioprio_set', 251, 30, 1, @VICTIM@, 0", "'migrate_pages', 256, 238, @VICTIM@, 1, room, room", "'move_pages', 279, 239, @VICTIM@, 0, 0, 0, 0, 0"),
    "limits of others": raw("'prlimit64', 302, 261, @VICTIM@, 7, room, 0", "'prlimit64', 302, 261, @PARENT@, 0, room, 0", "'get_robust_list', 274, 100, @VICTIM@, room, room"),
    "memory between processes": raw("'shmget', 29, 194, 0, 4096, 0o1666", "'semget', 64, 190, 0, 1, 0o1666", "'msgget', 68, 186, 0, 0o1666", "'mq_open', 240, 180, b'x', 0o100, 0o666, 0"),
    "typing into the terminal": raw(*(f"'ioctl {request:#x}', 16, 29, {file}, {request:#x}, room" for file in (0, 1, 2) for request in (0x5412, 0x540E, 0x541C, 0x5410, 0x540F, 0x5422, 0x5413, 0x5452, 0x8901, 0x8902, 0x40086602, 0x5421))),
}  # fmt: skip

KERNEL = {
    "every call that no program needs": RAW + f"for entry in '''{CALLS}'''.split():\n"
    "  name, *numbers = entry.split(':')\n"
    "  raw(name, *(None if n == '-' else int(n) for n in numbers), 0, 0, 0, 0, 0, 0)\nprint('refused')",
    "numbers that are not on any list": RAW + "for n in [*range(335, 424), *range(450, 1200), *range(0x40000000, 0x40000000 + 600), -1]:\n  raw(f'number {n}', n, n, 0, 0, 0, 0, 0, 0)\nprint('refused')",
    "mounts": raw("'mount', 165, 40, b'none', b'/', b'tmpfs', 0, 0", "'mount', 165, 40, 0, b'/', 0, 32, 0", "'umount2', 166, 39, b'/', 2", "'fsopen', 430, 430, b'tmpfs', 0", "'open_tree', 428, 428, -100, b'/', 1",
                  "'move_mount', 429, 429, 0, room, 0, room, 0", "'mount_setattr', 442, 442, -100, b'/', 0, room, 32", "'pivot_root', 155, 41, b'.', b'.'", "'chroot', 161, 51, b'.'"),
    "namespaces": raw(*(f"'unshare', 272, 97, {flags:#x}" for flags in (0x10000000, 0x40000000, 0x20000, 0x80, 0)), "'setns', 308, 268, 0, 0"),
    "users": raw("'setuid', 105, 146, 0", "'setgid', 106, 144, 0", "'setresuid', 117, 147, 0, 0, 0", "'setresgid', 119, 149, 0, 0, 0", "'setgroups', 116, 159, 0, 0", "'setfsuid', 122, 151, 0", "'capset', 126, 91, room, room", "'prctl AMBIENT', 157, 167, 47, 2, 0, 0, 0", "'prctl SECUREBITS', 157, 167, 28, 0, 0, 0, 0"),
    "a filter of its own": raw("'prctl', 157, 167, 22, 2, 0, 0, 0", "'prctl mode 1', 157, 167, 22, 1, 0, 0, 0", "'seccomp', 317, 277, 1, 8, room", "'landlock', 444, 444, room, 8, 0"),
    "io_uring": raw("'setup', 425, 425, 1, room", "'enter', 426, 426, 0, 1, 1, 0, 0, 0", "'register', 427, 427, 0, 0, 0, 0"),
    "programs in the kernel": raw("'bpf', 321, 280, 5, room, 72", "'perf_event_open', 298, 241, room, 0, -1, -1, 0", "'userfaultfd', 323, 282, 1", "'init_module', 175, 105, room, 1, b''", "'finit_module', 313, 273, 0, b'', 0", "'kexec_load', 246, 104, 0, 0, 0, 0"),
    "keys": raw("'add_key', 248, 217, b'user', b'x', b'y', 1, -3", "'keyctl', 250, 219, 0, -3, 1", "'request_key', 249, 218, b'user', b'x', 0, -3"),
    "the machine": raw("'reboot', 169, 142, 0xfee1dead, 672274793, 0, 0", "'syslog', 103, 116, 3, room, 9", "'swapon', 167, 224, b'x', 0", "'acct', 163, 89, 0", "'iopl', 172, None, 3", "'personality', 135, 92, 0x40000"),
    "32-bit calls": "import ctypes, mmap, platform\nif platform.machine() != 'x86_64': raise OSError('refused: none here')\nm = mmap.mmap(-1, 4096, prot=7)\nm[:8] = bytes.fromhex('b814000000cd80c3')\nprint('GOT', ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))())",
    "limits": raw(*(f"{call}, {kind}, room, 0" for call in ("'setrlimit', 160, 164", "'prlimit64', 302, 261, 0") for kind in (0, 6, 7, 9))),
    "data that runs when it is read": "import pickle, os\nclass P:\n  def __reduce__(self): return (os.system, ('echo GOT > @OUTSIDE@/p',))\nprint(pickle.loads(pickle.dumps(P())))\nprint('refused')",
}  # fmt: skip

USING_UP = {
    "threads": "import threading, time\nthreading.stack_size(32768)\nmade = 0\ntry:\n  while made < 200:\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n    made += 1\nexcept RuntimeError: pass\nprint('GOT' if made > 64 else 'refused', made)",
    "threads by machine code": f"""
import ctypes, mmap, platform
if platform.machine() != 'x86_64': raise OSError('refused: none here')
m = mmap.mmap(-1, 8192, prot=7)
code = bytes.fromhex("{THREAD_BOMB}")
m[:len(code)] = code
at = ctypes.addressof(ctypes.c_char.from_buffer(m))
made = 4000 - ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, ctypes.c_void_p)(at)(4000, at + 8192)
print("GOT" if made > 200 else "refused", made)  # about 32, and what others of this user end meanwhile
""",
    "memory": "x = []\ntry:\n  while True: x.append(bytearray(10**7))\nexcept MemoryError: print('GOT' if len(x) > 60 else 'refused', len(x))",
    "memory by mmap": "import mmap\nx = []\ntry:\n  while True: x.append(mmap.mmap(-1, 10**7))\nexcept OSError: print('GOT' if len(x) > 60 else 'refused', len(x))",
    "a large file": "with open('big', 'wb') as f:\n  for _ in range(99): f.write(bytes(10**6))\nprint('GOT')",
    "a file full of holes": "import os\nwith open('big', 'wb') as f: os.ftruncate(f.fileno(), 1 << 40)\nprint('GOT')",
    "many files": "for i in range(10**5): open(str(i), 'w')\nprint('GOT')",
    "many open files": each("[os.dup(0) for _ in range(100)]", "[os.pipe() for _ in range(100)]", "[os.open('/', os.O_PATH) for _ in range(99)]"),
    "large pipes": each("fcntl.fcntl(os.pipe()[0], 1031, 1 << 20)", "fcntl.fcntl(1, 1031, 1 << 20)", first="\nimport fcntl\n"),
    "locked memory": raw("'mlock', 149, 228, room, 4096", "'mlockall', 151, 230, 3", "'mlock2', 325, 284, room, 4096, 0"),
    "output": "while True: print('x' * 1000)",
    "an end by signal": "import os\nprint('refused', flush=True)\nos.abort()",
    "the jail's own words": "import sys\nprint('OSError: Landlock: refused')\nsys.stdout.flush()\nimport os\nos._exit(97)",
    "the jail's own functions": "import __main__ as m\nfor f in (lambda: m.enter_namespaces('/tmp', 1), lambda: m.drop_capabilities(), lambda: m.limit_threads(10**6, True)):\n  try: print('refused' if f() is False else 'GOT')\n  except (OSError, ValueError) as e: print('refused', e)",
}  # fmt: skip

ENDLESS = {
    "asleep": "import time\ntime.sleep(10**6)",
    "asleep without output": "import os, time\nos.close(1); os.close(2)\ntime.sleep(10**6)",
    "busy threads": "import threading\ndef f():\n  while True: pass\nfor _ in range(8): threading.Thread(target=f).start()\nf()",
    "a thread that stays": "import threading, time\nthreading.Thread(target=time.sleep, args=(10**6,)).start()",
    "at exit": "import atexit, time\natexit.register(time.sleep, 10**6)",
    "stopped": "import os\nos.kill(os.getpid(), 19)\nimport time\ntime.sleep(10**6)",
}  # fmt: skip
"""Programs that only the clock ends."""

HOSTILE = {
    f"{after}: {name}": program
    for after, programs in (
        ("processes", PROCESSES),
        ("network", NETWORK),
        ("reading", READING),
        ("writing", WRITING),
        ("others", OTHERS),
        ("kernel", KERNEL),
        ("using up", USING_UP),
        ("without end", ENDLESS),
    )
    for name, program in programs.items()
}
