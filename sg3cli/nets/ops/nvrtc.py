"""Compile CUDA source with NVRTC and launch it through the driver: two libraries that come with torch or the driver.

No toolkit is needed. `torch.cuda._compile_kernel` does nearly the same, but asks for the headers of one.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch


class CudaError(Exception):
    """A kernel cannot be compiled, loaded or launched; the message says why."""


def compile_cubin(source: str, options: Sequence[str], capability: tuple[int, int]) -> bytes:
    """Machine code for a compute capability, or PTX for the last one before it if NVRTC does not know it yet."""
    lib = library()
    known = _architectures(lib)
    wanted = 10 * capability[0] + capability[1]
    exact = wanted in known
    newest = max((arch for arch in known if arch <= wanted), default=wanted)
    flags = [f"--gpu-architecture={'sm' if exact else 'compute'}_{newest}", "--std=c++17", *options]
    program = ctypes.c_void_p()
    _check(lib, lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"filtered_lrelu.cu", 0, None, None))
    try:
        encoded = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
        if lib.nvrtcCompileProgram(program, len(flags), encoded):
            said = _fetch(lib, program, "ProgramLog").decode(errors="replace").strip("\0\n ")
            raise CudaError(f"NVRTC refused the source: {said[:400]}")
        return _fetch(lib, program, "CUBIN" if exact else "PTX")
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(program))


@functools.cache
def library() -> ctypes.CDLL:
    """NVRTC of the CUDA version that torch was built for. Raises `CudaError` when there is none."""
    if torch.version.cuda is None:
        raise CudaError("this build of torch has no CUDA")
    for name in _candidates(int(torch.version.cuda.partition(".")[0])):
        try:
            lib = ctypes.CDLL(name)
            lib.nvrtcGetErrorString.restype = ctypes.c_char_p
            lib.nvrtcGetNumSupportedArchs  # noqa: B018  (AttributeError: before CUDA 11.2)
        except (OSError, AttributeError):
            continue
        return lib
    raise CudaError("NVRTC was not found beside torch")


def _candidates(major: int) -> Iterator[str]:
    """Names and paths under which NVRTC may be: where the loader looks, then the packages that torch depends on."""
    if sys.platform == "win32":
        yield from (str(path) for path in (Path(torch.__file__).parent / "lib").glob(f"nvrtc64_{major}*_0.dll"))
        return
    name = f"libnvrtc.so.{major}"
    yield name
    for folder in ("platlib", "purelib"):
        yield from map(str, sorted(Path(sysconfig.get_paths()[folder]).glob(f"nvidia/*/lib/{name}")))
    yield from map(str, sorted((Path(torch.__file__).parent / "lib").glob("libnvrtc*.so*")))
    yield "libnvrtc.so"


def _architectures(lib: ctypes.CDLL) -> list[int]:
    """What NVRTC compiles for, as 10 * major + minor."""
    count = ctypes.c_int()
    _check(lib, lib.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    found = (ctypes.c_int * count.value)()
    _check(lib, lib.nvrtcGetSupportedArchs(found))
    return list(found)


def _fetch(lib: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(lib, getattr(lib, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(lib, getattr(lib, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _check(lib: ctypes.CDLL, status: int) -> None:
    if status:
        raise CudaError(f"NVRTC: {lib.nvrtcGetErrorString(status).decode()}")


@functools.cache
def _driver() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as e:
        raise CudaError(f"the driver's library does not load ({e})") from e
    pointer, count = ctypes.c_void_p, ctypes.c_uint
    lib.cuCtxPushCurrent_v2.argtypes = [pointer]
    lib.cuModuleLoadData.argtypes = [pointer, ctypes.c_char_p]
    lib.cuModuleGetFunction.argtypes = [pointer, pointer, ctypes.c_char_p]
    lib.cuLaunchKernel.argtypes = [pointer, *[count] * 7, pointer, pointer, pointer]
    return lib


def _call(name: str, *arguments: object) -> None:
    """Call a function of the driver. Raises `CudaError` when it fails."""
    lib = _driver()
    status = getattr(lib, name)(*arguments)
    if status:
        text = ctypes.c_char_p()
        lib.cuGetErrorString(status, ctypes.byref(text))
        raise CudaError(f"{name}: {(text.value or b'unknown error').decode()}")


class Kernel:
    """One function of a compiled module on one device; its only parameter is a structure passed by value."""

    def __init__(self, code: bytes, name: str, device: int) -> None:
        self._context, self._module, self._function = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        number = ctypes.c_int()
        _call("cuInit", 0)
        _call("cuDeviceGet", ctypes.byref(number), device)
        # The context that torch uses as well. It need not be current in this thread: autograd has threads of its own.
        _call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), number)
        _call("cuCtxPushCurrent_v2", self._context)
        try:
            _call("cuModuleLoadData", ctypes.byref(self._module), code)
            _call("cuModuleGetFunction", ctypes.byref(self._function), self._module, name.encode())
        finally:
            self._leave()

    def launch(self, blocks: int, threads: int, parameter: ctypes.Structure, stream: int) -> None:
        """Run `blocks` blocks of `threads` threads, in order with what else is on the stream."""
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(parameter))
        _call("cuCtxPushCurrent_v2", self._context)
        try:
            _call("cuLaunchKernel", self._function, blocks, 1, 1, threads, 1, 1, 0, stream, parameters, None)
        finally:
            self._leave()

    def _leave(self) -> None:
        _call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
