"""What starts a sandbox: the command for bubblewrap, and the code that goes into it."""

import fcntl
import functools
import marshal
import os
import sys
import sysconfig
from pathlib import Path

from distill.isolation.walls import SYSTEM

PACKAGE = Path(__file__).resolve().parents[2]
INSIDE = (
    *("isolation.syscalls", "isolation.kernel"),
    *(f"grading.sandbox.inside.{name}" for name in ("values", "candidate", "compiling", "testing", "zygote")),
)
"""The modules that run inside, each after those that it imports."""
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
PACKAGES = "/packages"
"""Where numpy is, if it is installed."""
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 - a private one
    "TMPDIR": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
    "USER": "nobody",
    "LOGNAME": "nobody",
    "PYTHONHASHSEED": "0",  # the same program does the same every time
    "PYTHONUTF8": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONINTMAXSTRDIGITS": "0",  # what is too long takes too long; judges of contests have no such limit
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
BOOTSTRAP = """
import gc, marshal, os, sys, types
gc.disable()
with os.fdopen({code}, "rb") as file:
    modules = marshal.load(file)
for name, code in modules:
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        module = sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(parts[end - 1]))
        if end > 1:
            setattr(sys.modules[".".join(parts[: end - 1])], parts[end - 1], module)
    exec(code, module.__dict__)
sys.path.append({packages!r})
sys.argv = [""]
module.main({control})
"""
NOBODY = "65534"


def command(control: int, code: int) -> list[str]:
    """Return the command that starts a sandbox.

    Args:
        control: descriptor of its control socket.
        code: descriptor of `inside_code()`.
    """
    built = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--uid", NOBODY, "--gid", NOBODY]
    built += ["--hostname", "sandbox"]
    # For the first process alone, in its own user namespace: it gives tests mounts of their own.
    built += ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN", "--clearenv"]
    for name, value in ENVIRONMENT.items():
        built += ["--setenv", name, value]
    return [*built, *_mounts(), "--chdir", "/", "--", python(), "-S", "-s", "-P", "-c", _bootstrap(control, code)]


def _bootstrap(control: int, code: int) -> str:
    return BOOTSTRAP.format(control=control, code=code, packages=PACKAGES)


@functools.cache
def _mounts() -> tuple[str, ...]:
    """Return the options for the files of a sandbox: the system's, Python's and numpy's, and nothing else."""
    built: list[str] = []
    for path in map(Path, SYSTEM):
        if path.is_symlink():
            built += ["--symlink", str(path.readlink()), str(path)]
        elif path.exists():
            built += ["--ro-bind", str(path), str(path)]
    for name in SYSTEM_FILES:
        built += ["--ro-bind-try", name, name]
    for name in DEVICES:
        built += ["--dev-bind-try", name, name]
    prefix = str(Path(sys.base_prefix).resolve())
    if not prefix.startswith("/usr"):
        built += ["--ro-bind", prefix, prefix]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # Packages that the user installed.
    installed = [
        Path(prefix, "lib", version),
        *Path("/usr/lib").glob("python3*"),
        *Path("/usr/local/lib").glob("python3*"),
    ]
    for folder in dict.fromkeys(path / name for path in installed for name in ("site-packages", "dist-packages")):
        if folder.is_dir():
            built += ["--tmpfs", str(folder), "--remount-ro", str(folder)]
    for folder in _numpy_folders():
        built += ["--ro-bind", str(folder), f"{PACKAGES}/{folder.name}"]
    return (*built, "--proc", "/proc", "--dir", "/tmp", "--remount-ro", "/")  # noqa: S108 - each test mounts its own


def _numpy_folders() -> list[Path]:
    packages = Path(sysconfig.get_paths()["platlib"])
    return [path for path in (packages / "numpy", packages / "numpy.libs") if path.is_dir()]


@functools.cache
def python() -> str:
    """Return the path of the Python that runs inside: that of the installation, not of a virtual environment."""
    return str(Path(getattr(sys, "_base_executable", None) or sys.executable).resolve())


@functools.cache
def asserts_source() -> bytes:
    """Return the module that only the tests' sandbox needs, and that imports much."""
    return PACKAGE.joinpath("grading", "sandbox", "inside", "asserts.py").read_bytes()


@functools.cache
def inside_code() -> bytes:
    """Return the code of the modules that run inside, as the sandbox's first program loads it."""
    modules = []
    for name in INSIDE:
        path = PACKAGE.joinpath(*name.split(".")).with_suffix(".py")
        modules.append((f"distill.{name}", compile(path.read_bytes(), f"<{name}>", "exec", dont_inherit=True)))
    return marshal.dumps(modules)


def memory_file(name: str, content: bytes) -> int:
    """Return a descriptor of a file in memory that nobody can change, at its beginning."""
    file = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    os.lseek(file, 0, os.SEEK_SET)
    return file
