"""Builds the compiled kernels of csrc/; everything else about the package is in pyproject.toml.

    pip install -r requirements.txt && pip install --no-build-isolation -e .

One call of $CXX (default: c++ or g++) with the headers of the torch that is installed. The kernels
use only LibTorch's stable ABI, so the library is tied neither to a Python nor to one torch. Without
a compiler, or in an isolated build without torch, the install succeeds all the same: the package
then runs on torch's own operators, and `detector/ops/build_error.txt` keeps the reason for the run
time.

Environment: CXX the compiler, CXXFLAGS further flags, DETECTOR_CUDA=0|1 reserved for CUDA kernels.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")
PACKAGE = Path("detector", "ops")
ERROR_FILE = "build_error.txt"
TORCH_TARGET = "0x020a000000000000"  # the stable ABI as of torch 2.10
CXX_FLAGS = (
    "-std=c++17 -O3 -fPIC -shared -fvisibility=hidden -Wall -Wextra "
    # Without the first two GCC leaves half of the loops scalar; none of them changes a value.
    "-fno-math-errno -fno-trapping-math -ffp-contract=fast -fopenmp-simd"
)


class BuildError(Exception):
    """The compiled kernels cannot be built here; the message says why, for the user."""


def cxx_command(sources: list[str], library: Path) -> list[str]:
    """The one command that compiles and links the CPU library.

    Raises:
        BuildError: no compiler, or no torch to take the headers from.
    """
    compiler = shlex.split(os.environ.get("CXX", "")) or ["c++" if shutil.which("c++") else "g++"]
    if shutil.which(compiler[0]) is None:
        raise BuildError(f"no C++ compiler: {compiler[0]} not found (set CXX, or install g++)")
    spec = importlib.util.find_spec("torch")  # found, not imported: that would take seconds
    if spec is None or spec.origin is None:
        raise BuildError("no torch during the build (an isolated build does not see it)")
    torch = Path(spec.origin).parent
    return [
        *compiler,
        *shlex.split(CXX_FLAGS),
        f"-DTORCH_TARGET_VERSION={TORCH_TARGET}",
        *["-isystem", str(torch / "include")],
        *shlex.split(os.environ.get("CXXFLAGS", "")),
        *sources,
        *["-o", str(library)],
        f"-L{torch / 'lib'}",
        "-ltorch_cpu",
    ]


# Library -> its compiler. A CUDA library is a second row, `_C_cuda` from csrc/*.cu by nvcc, and a
# second Extension below where there are such sources and an nvcc.
COMMANDS: dict[str, Callable[[list[str], Path], list[str]]] = {"_C_cpu": cxx_command}


class BuildKernels(build_ext):
    """Builds each library by its command; a failure is written down, the install goes on."""

    def get_ext_filename(self, fullname: str) -> str:
        """detector.ops._C_cpu -> detector/ops/_C_cpu.so: no Python version in the name."""
        return str(Path(*fullname.split(".")).with_suffix(".so"))

    def build_extension(self, ext: Extension) -> None:
        """Leaves either the library or the error file in the build folder, never both."""
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        error_file = library.with_name(ERROR_FILE)
        for stale in (library, error_file):
            stale.unlink(missing_ok=True)
        try:
            self._compile(COMMANDS[library.stem](ext.sources, library))
        except BuildError as error:
            self.warn(f"no compiled kernels: {error}")
            error_file.write_text(f"{error}\n", encoding="utf-8")

    def _compile(self, command: list[str]) -> None:
        self.announce(shlex.join(command), level=2)
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            messages = done.stderr.decode(errors="replace").splitlines()
            first = next((line for line in messages if "error" in line), "no message")
            raise BuildError(f"{command[0]} failed with status {done.returncode}: {first.strip()}")

    def get_outputs(self) -> list[str]:
        """Only what was really built: the installer wants every file it is told of."""
        return [path for path in super().get_outputs() if Path(path).exists()]

    def copy_extensions_to_source(self) -> None:
        """For editable installs: the libraries, or the error file, beside the Python sources."""
        built = Path(self.build_lib) / PACKAGE
        for name in [f"{library}.so" for library in COMMANDS] + [ERROR_FILE]:
            target = PACKAGE / name
            if not (built / name).exists():
                target.unlink(missing_ok=True)
                continue
            # By a rename: a process that has the old library mapped must not see it change.
            shutil.copyfile(built / name, target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)


setup(
    ext_modules=[
        Extension(
            "detector.ops._C_cpu",
            sources=sorted(map(str, CSRC.glob("*.cpp"))),
            depends=sorted(map(str, CSRC.glob("*.h"))),
        )
    ],
    cmdclass={"build_ext": BuildKernels},
)
