"""Builds the kernels of csrc/, and puts the YAML files of the top level into wheels.

    pip install -r requirements.txt && pip install --no-build-isolation -e .
    pip wheel --no-deps .       # one wheel for any Python, for this platform

Calls $CXX (default: c++ or g++) for the CPU and, if there is an nvcc and the installed torch supports
CUDA, nvcc, with torch's own headers. The kernels use only LibTorch's stable ABI, so a library works with
any version of Python and any later torch. Without a compiler, or in an isolated build without torch, the
install still succeeds: the package then runs on torch's own operators, and a `*_build_error.txt` beside
the missing library keeps the reason for the warning at run time.

Environment:
    CXX, CXXFLAGS         the C++ compiler, and additional flags for it
    DETECTOR_CUDA=0|1     0: no CUDA kernels; 1: the install fails where they cannot be built
    CUDA_HOME             the toolkit whose bin/nvcc is used; default: nvcc on PATH
    TORCH_CUDA_ARCH_LIST  architectures, such as "8.6;9.0+PTX"; default: those of the GPUs in this
                          machine or, without one, all in ARCHITECTURES that nvcc knows
"""

import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

CSRC = Path("csrc")
PACKAGE = Path("detector", "ops")
BUNDLED = Path("detector", "descriptions")  # detector/config/descriptions.py reads it
TORCH_TARGET = "0x020a000000000000"  # the stable ABI as of torch 2.10
CXX_FLAGS = (
    "-std=c++17 -O3 -fPIC -shared -fvisibility=hidden -Wall -Wextra "
    # Without the first two, GCC does not vectorise half of the loops; none of these changes a value.
    "-fno-math-errno -fno-trapping-math -ffp-contract=fast -fopenmp-simd"
)
# The CUDA runtime is linked into the library, which then loads beside a torch for any CUDA version.
NVCC_FLAGS = (
    "-std=c++17 -O3 -shared -cudart static -DUSE_CUDA --threads 0 "
    "-Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra"
)
# the code for 8.0 also runs on 8.6 and 8.9, that for 10.0 on 10.3
ARCHITECTURES = ("75", "80", "90", "100", "120")


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
    torch = torch_folder()
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


def torch_folder() -> Path:
    """The folder of the installed torch, located without importing it, which would take seconds.

    Raises:
        BuildError: there is none.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise BuildError(
            "no torch during the build (an isolated build does not see the installed one)"
        )
    return Path(spec.origin).parent


def nvcc_command(sources: list[str], library: Path) -> list[str]:
    """The one command that compiles and links the CUDA library.

    nvcc also links: then its installation folder need not be located, which fails where the nvcc on PATH
    is a script in another folder.

    Raises:
        BuildError: switched off, no nvcc, or a torch without CUDA.
    """
    if os.environ.get("DETECTOR_CUDA") == "0":
        raise BuildError("switched off by DETECTOR_CUDA=0 during the build")
    torch = torch_folder()
    version = (torch / "version.py").read_text(encoding="utf-8")
    if re.search(r"^cuda\b.*= None", version, re.MULTILINE):
        raise BuildError("the installed torch has no CUDA")
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which(str(Path(home, "bin", "nvcc")) if home else "nvcc")
    if nvcc is None:
        where = f"in CUDA_HOME={home}" if home else "on PATH (set CUDA_HOME)"
        raise BuildError(f"no nvcc {where}")
    return [
        nvcc,
        *NVCC_FLAGS.split(),
        *architecture_flags(nvcc),
        f"-DTORCH_TARGET_VERSION={TORCH_TARGET}",
        *["-isystem", str(torch / "include")],
        *sources,
        *["-o", str(library)],
        f"-L{torch / 'lib'}",
        *["-ltorch_cpu", "-ltorch_cuda"],
    ]


def architecture_flags(nvcc: str) -> list[str]:
    """-gencode for each architecture; by default also PTX for the last, which newer GPUs compile.

    Raises:
        BuildError: TORCH_CUDA_ARCH_LIST is not a list of architectures, or nvcc knows none of ours.
    """
    wanted = os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    names = re.split(r"[;, ]+", wanted.strip()) if wanted.strip() else list_gpu_architectures()
    if not names:
        known = run_command([nvcc, "--list-gpu-code"]).split()
        names = [code for code in ARCHITECTURES if f"sm_{code}" in known]
        if not names:
            raise BuildError(f"{nvcc} knows none of the architectures {', '.join(ARCHITECTURES)}")
        names[-1] += "+PTX"
    flags = []
    for name in names:
        match = re.fullmatch(r"(\d+)\.?(\d[af]?)(\+PTX)?", name)
        if match is None:
            raise BuildError(
                f"TORCH_CUDA_ARCH_LIST={wanted}: {name!r} is not an architecture such as 9.0 or 9.0+PTX"
            )
        code = match[1] + match[2]
        flags += ["-gencode", f"arch=compute_{code},code=sm_{code}"]
        if match[3]:
            flags += ["-gencode", f"arch=compute_{code},code=compute_{code}"]
    return flags


def list_gpu_architectures() -> list[str]:
    """The architectures of this machine's GPUs, each once, such as ["9.0"]; empty without a GPU."""
    if shutil.which("nvidia-smi") is None:
        return []
    lines = run_command(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])
    return sorted(set(re.findall(r"^\d+\.\d+$", lines, re.MULTILINE)), key=float)


def run_command(command: list[str]) -> str:
    """Runs a command and returns its output; "" if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


# Library -> the command that makes it.
COMMANDS: dict[str, Callable[[list[str], Path], list[str]]] = {
    "_C_cpu": cxx_command,
    "_C_cuda": nvcc_command,
}


def error_file(library: str) -> str:
    """The name of the file that says why a library was not built."""
    return f"{library}_build_error.txt"


def origin_file(library: str) -> str:
    """The name of the file that says what a library was built from, and what it is."""
    return f"{library}_built_from.txt"


def describe_origin(command: list[str], inputs: list[str], library: Path) -> str:
    """Changes with anything that the library depends on, and with the library itself.

    Args:
        command: that builds it.
        inputs: sources and headers.
        library: as it was built.
    """
    words = [word for word in command if not word.endswith(library.name)]
    version = torch_folder() / "version.py"
    parts = [shlex.join(words).encode(), run_command([command[0], "--version"]).encode()]
    parts += [Path(each).read_bytes() for each in (version, *inputs, library)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest() + "\n"


class BuildPackage(build_py):
    """Copies the YAML files of the top level into the package that is built: a wheel has no checkout."""

    def run(self) -> None:
        """Copies them as well as the modules; an editable install finds them in the checkout."""
        super().run()
        if not self.editable_mode:
            for source, target in self._descriptions().items():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All files that this command makes."""
        copied = [] if self.editable_mode else map(str, self._descriptions().values())
        return [*super().get_outputs(include_bytecode), *copied]

    def _descriptions(self) -> dict[Path, Path]:
        """File of the top level -> where it goes."""
        return {path: Path(self.build_lib, BUNDLED, path) for path in list_descriptions()}


def list_descriptions() -> list[Path]:
    """The YAML files that the commands need, relative to the top level.

    Raises:
        SystemExit: not all folders have some, as in an incomplete source distribution.
    """
    found = {name: sorted(Path(name).glob("*.yaml")) for name in ("configs", "data", "weights")}
    found["configs"] += sorted(Path("configs/paper").glob("*.yaml"))
    for name, files in found.items():
        if not files:
            raise SystemExit(f"no {name}/*.yaml beside setup.py")
    return [path for files in found.values() for path in files]


class PlatformWheel(bdist_wheel):
    """A wheel for any Python 3, since the kernels use no symbol of Python, but for one platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """(Python, ABI, platform)."""
        return "py3", "none", super().get_tag()[2]


class BuildKernels(build_ext):
    """Builds each library by its command; a failure is recorded in a file and the install continues.

    A library that lies in the checkout and was built from the same is taken as it is.
    """

    def initialize_options(self) -> None:
        """`origins`: library -> what it was built from, see `describe_origin`."""
        super().initialize_options()
        self.origins: dict[str, str] = {}

    def get_ext_filename(self, fullname: str) -> str:
        """detector.ops._C_cpu -> detector/ops/_C_cpu.so: no Python version in the name."""
        return str(Path(*fullname.split(".")).with_suffix(".so"))

    def build_extension(self, ext: Extension) -> None:
        """Leaves either the library or the error file in the build folder, never both."""
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        reason = library.with_name(error_file(library.stem))
        for stale in (library, reason):
            stale.unlink(missing_ok=True)
        try:
            command = COMMANDS[library.stem](ext.sources, library)
            inputs = [*ext.sources, *ext.depends]
            kept, record = PACKAGE / library.name, PACKAGE / origin_file(library.stem)
            if (
                kept.exists()
                and record.exists()
                and record.read_text(encoding="utf-8") == describe_origin(command, inputs, kept)
            ):
                shutil.copyfile(kept, library)
            else:
                self._compile(command)
            self.origins[library.stem] = describe_origin(command, inputs, library)
        except BuildError as error:
            if library.stem == "_C_cuda" and os.environ.get("DETECTOR_CUDA") == "1":
                raise SystemExit(f"DETECTOR_CUDA=1, but {error}") from None
            self.warn(f"no {library.name}: {error}")
            reason.write_text(f"{error}\n", encoding="utf-8")

    def _compile(self, command: list[str]) -> None:
        self.announce(shlex.join(command), level=2)
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            messages = done.stderr.decode(errors="replace").splitlines()
            first = next((line for line in messages if "error" in line), "no message")
            raise BuildError(f"{command[0]} failed with status {done.returncode}: {first.strip()}")

    def get_outputs(self) -> list[str]:
        """Only the files that were built: the installer fails on any that is missing."""
        return [path for path in super().get_outputs() if Path(path).exists()]

    def copy_extensions_to_source(self) -> None:
        """For editable installs: copies the libraries, or the error files, beside the Python sources."""
        built = Path(self.build_lib) / PACKAGE
        for name in [f"{library}.so" for library in COMMANDS] + list(map(error_file, COMMANDS)):
            target = PACKAGE / name
            if not (built / name).exists():
                target.unlink(missing_ok=True)
                continue
            # By renaming: a process that has mapped the old library must not see it change.
            shutil.copyfile(built / name, target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)
        for library in COMMANDS:
            record = PACKAGE / origin_file(library)
            record.unlink(missing_ok=True)
            if library in self.origins:
                record.write_text(self.origins[library], encoding="utf-8")


setup(
    ext_modules=[
        Extension(
            f"detector.ops.{library}",
            sources=sorted(map(str, CSRC.glob(pattern))),
            depends=sorted(map(str, [*CSRC.glob("*.h"), *CSRC.glob("*.cuh")])),
        )
        for library, pattern in (("_C_cpu", "*.cpp"), ("_C_cuda", "*.cu"))
    ],
    cmdclass={
        "bdist_wheel": PlatformWheel,
        "build_ext": BuildKernels,
        "build_py": BuildPackage,
    },
)
