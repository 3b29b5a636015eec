r"""Lets the modules of lm and app run on Linux as if on Windows. See PYTHONPATH.

Libraries see Linux. In the modules of lm and app, `sys.platform` is "win32", and the standard library lacks
what it lacks on Windows, or behaves as there:

- fcntl, resource, termios and others cannot be imported; the functions and constants in HIDDEN do not exist
- os.fsync needs a file that is open for writing
- os.kill ends any process at once, without calling handlers
- msvcrt.locking locks a byte for one process; a child does not inherit the lock
- subprocess.Popen passes no open files on
- a file that is open or memory-mapped in any process of this simulation cannot be renamed, replaced or
  deleted, and the folders above it, or above a current folder, cannot be renamed
- names with < > : " \ | ? *, with a dot or a space at the end, or of a device, such as aux.txt, are refused
"""

import ast
import errno
import fcntl
import importlib.abc
import importlib.machinery
import os
import re
import signal
import struct
import subprocess
import sys
import sysconfig
import types
from pathlib import Path

from tests.strict_fsync import fsync

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("lm", "app")
PROCESSES = Path(os.environ["WINDOWS_PROCESSES"])  # a folder with an empty file for each process
MISSING = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
HIDDEN = {
    "os": re.compile(
        r"O_(NONBLOCK|NOFOLLOW|DIRECTORY|CLOEXEC|SYNC|PATH|TMPFILE)|.*fork.*|killpg|set?[eg]?uid|get[eg]*[ug]id"
        r"|getpg.*|setsid|setpg.*|nice|f?statvfs|sysconf.*|confstr.*|uname|getloadavg|sched_.*|mk(fifo|nod)"
        r"|p(read|write)v?2?|posix_.*|f?chown|lchown|chroot|openpty|ttyname|wait|wait[34]|waitid|W[A-Z]+"
        r"|sendfile|pipe2|fdatasync|sync|lockf|[gs]et_blocking|spawn.*p.?|fchmod|fchdir"
    ),
    "signal": re.compile(
        r"SIG(KILL|ALRM|USR[12]|HUP|PIPE|STOP|CONT|CHLD|QUIT|TSTP|TT..|WINCH|_BLOCK|_UNBLOCK|_SETMASK)|alarm"
        r"|[gs]etitimer|pthread_.*|pause|sig(wait|pending|timed).*|siginterrupt"
    ),
    "subprocess": re.compile(r"getoutput"),
    "time": re.compile(r"tzset|clock_.*|pthread_.*"),
    "socket": re.compile(r"AF_UNIX|TCP_USER_TIMEOUT|socketpair|SO_REUSEPORT"),
}
FORBIDDEN = re.compile(r'.*[<>:"\\|?*\x00-\x1f].*|.*[. ]|(?i:con|prn|aux|nul|com\d|lpt\d)(\..*)?')


class Standard(types.ModuleType):
    """A module of the standard library, without what is hidden and with other values of some names."""

    def __init__(self, module, **others):
        super().__init__(module.__name__)
        self.__dict__.update(others)
        self._module, self._hidden = module, HIDDEN.get(module.__name__)

    def __getattr__(self, name):
        if self._hidden and self._hidden.fullmatch(name):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on Windows")
        return getattr(self._module, name)


def kill(process, number):
    os.kill(process, signal.SIGKILL)


def rename(path, target):
    if os.path.exists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path, None, target)
    os.rename(path, target)


def locking(file, mode, count):
    assert count == 1
    writable = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    kind = {0: fcntl.F_UNLCK, 2: fcntl.F_WRLCK if writable else fcntl.F_RDLCK}[mode]
    lock = struct.pack("hhqqi", kind, os.SEEK_SET, os.lseek(file, 0, os.SEEK_CUR), 1, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


class Popen(subprocess.Popen):
    def __init__(self, *arguments, creationflags=0, **options):
        assert "preexec_fn" not in options and not options.get("pass_fds")
        # Ignored on Windows; and Ctrl-C does not reach another process group.
        options["start_new_session"] = bool(creationflags & 0x200)
        super().__init__(*arguments, **options)

    def terminate(self):
        self.kill()


msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_UNLCK, msvcrt.LK_NBLCK, msvcrt.locking = 0, 2, locking
STANDARD = {
    "os": Standard(os, fsync=fsync, kill=kill, rename=rename, O_BINARY=0, supports_fd=set()),
    "signal": Standard(signal, SIGBREAK=signal.SIGTTIN),
    "subprocess": Standard(
        subprocess,
        Popen=Popen,
        CREATE_NEW_PROCESS_GROUP=0x200,
        CREATE_NO_WINDOW=0x8000000,
        BELOW_NORMAL_PRIORITY_CLASS=0x4000,
    ),
    "msvcrt": msvcrt,
    **{name: Standard(__import__(name)) for name in ("time", "socket")},
}


class OnWindows(ast.NodeTransformer):
    """Takes what a module imports from STANDARD, and its platform."""

    def visit_Import(self, node):
        found = [self._found(alias) for alias in node.names]
        return [ast.fix_missing_locations(ast.copy_location(n, node)) for n in found]

    def _found(self, alias):
        if alias.name in MISSING:
            return ast.Import([ast.alias(f"no_module_{alias.name}_on_windows", alias.name)])
        if alias.name in STANDARD:
            code = f"{alias.asname or alias.name} = __import__('sitecustomize').STANDARD[{alias.name!r}]"
            return ast.parse(code).body[0]
        return ast.Import([alias])

    def visit_ImportFrom(self, node):
        assert node.level or node.module not in {*MISSING, *STANDARD}, "import the module itself"
        return node

    def visit_Attribute(self, node):
        if isinstance(node.value, ast.Name) and (node.value.id, node.attr) == ("sys", "platform"):
            return ast.copy_location(ast.Constant("win32"), node)
        return self.generic_visit(node)


class Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname):  # not the compiled file of Linux
        return self.source_to_code(self.get_data(self.path), self.path)

    def source_to_code(self, data, path, *, _optimize=-1):
        return compile(OnWindows().visit(ast.parse(data)), path, "exec", dont_inherit=True)


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] not in PACKAGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(name, spec.origin)
        return spec


def is_ours():
    """Whether the code that is about to change a file was called by lm or app, at most through the standard
    library."""
    standard = (sysconfig.get_path("stdlib"), "<frozen")
    frame = sys._getframe(1).f_back
    while frame:
        file = frame.f_code.co_filename
        if file.startswith(tuple(f"{ROOT / package}/" for package in PACKAGES)):
            return True
        if not file.startswith(standard) or "/site-packages/" in file:
            return False
        if file.endswith("/tempfile.py") and frame.f_code.co_name in ("TemporaryFile", "opener"):
            return False
        frame = frame.f_back
    return False


def full_path(path, folder=-1):
    path = os.fsdecode(path)
    parent = os.readlink(f"/proc/self/fd/{folder}") if folder not in (None, -1) else os.getcwd()
    return os.path.normpath(os.path.join(parent, path))


def refuse_if_used(path):
    """Raise PermissionError if a path, or something below it, is open, mapped or a current folder."""
    for process in PROCESSES.iterdir():
        used = set()
        try:
            for file in os.listdir(f"/proc/{process.name}/fd"):
                used.add(os.readlink(f"/proc/{process.name}/fd/{file}"))
            used = {file for file in used if not os.path.isdir(file)}  # which `rmtree` has open on Linux
            for line in Path(f"/proc/{process.name}/maps").read_text().splitlines():
                used.add(line[73:])
            used.add(os.readlink(f"/proc/{process.name}/cwd"))
        except OSError:
            continue  # it has just ended, or closed the file
        if found := next((file for file in used if file == path or file.startswith(f"{path}/")), None):
            reason = f"{found} is used by process {process.name}"
            print(f"Windows refuses to change {path}: {reason}", file=sys.__stderr__)
            raise PermissionError(errno.EACCES, reason, path)


def watch(event, arguments):
    if event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir") or not is_ours():
        return
    if event == "open":
        path, _, flags = arguments
        if flags & os.O_CREAT and isinstance(path, (str, bytes)):
            check_name(path)
    elif event == "os.mkdir":
        check_name(arguments[0])
    elif event == "os.rename":
        source, target, source_folder, target_folder = arguments
        check_name(target)
        refuse_if_used(full_path(source, source_folder))
        refuse_if_used(full_path(target, target_folder))
    else:
        path, folder = arguments
        refuse_if_used(full_path(path, folder))


def check_name(path):
    name = os.path.basename(os.fsdecode(path).rstrip("/"))
    if FORBIDDEN.fullmatch(name):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)


(PROCESSES / str(os.getpid())).touch()
sys.meta_path.insert(0, Finder())
sys.addaudithook(watch)
