"""Run the CUDA kernel without a GPU: its source compiled as C++, one thread of the system for each thread of a block.

Blocks run one after another, so that `__shared__` may be `static`. What this shows: indices, phases, masks, barriers,
rounding. What it does not: speed, and half-precision conversion by the GPU's own instruction, which stands in here.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import torch

from sg3cli.nets.ops import cuda_launch
from sg3cli.nets.ops.cuda_launch import Pass, Problem

THREADS = 7  # no divisor of anything
COMPILER = shutil.which("g++")

SHIM = r"""
#include <pthread.h>
#include <string.h>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static

struct Index { unsigned x; };
static thread_local Index threadIdx, blockIdx;
static pthread_barrier_t barrier;
static void __syncthreads() { pthread_barrier_wait(&barrier); }
static unsigned __float_as_uint(float v) { unsigned bits; memcpy(&bits, &v, 4); return bits; }
static float __uint_as_float(unsigned bits) { float v; memcpy(&v, &bits, 4); return v; }

#if TYPE == 1
typedef unsigned short Element;
static float to_float(Element h) {
    const unsigned sign = (h & 0x8000u) << 16, rest = h & 0x7fffu;
    if (rest < 0x400) return (sign ? -1.0f : 1.0f) * rest * 0x1p-24f;
    return __uint_as_float(sign | (rest << 13) + (rest < 0x7c00 ? 0x38000000u : 0x70000000u));
}
static Element from_float(float v) {
    const unsigned bits = __float_as_uint(v), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return sign | 0x7e00;
    if (rest >= 0x477ff000) return sign | 0x7c00;
    if (rest < 0x38800000) return sign | (__float_as_uint(__uint_as_float(rest) + 0.5f) - 0x3f000000);
    return sign | (rest + 0xfff + (rest >> 13 & 1) - 0x38000000) >> 13;
}
#endif

#include SOURCE

static const Problem* problem;
static unsigned block_count;

static void* work(void* index) {
    threadIdx.x = (unsigned)(size_t)index;
    for (blockIdx.x = 0; blockIdx.x < block_count; ++blockIdx.x) {
        KERNEL(*problem);
        __syncthreads();
    }
    return nullptr;
}

extern "C" void emulate(const Problem* p, unsigned blocks) {
    pthread_t threads[THREADS];
    problem = p, block_count = blocks;
    pthread_barrier_init(&barrier, nullptr, THREADS);
    for (size_t i = 0; i < THREADS; ++i) pthread_create(&threads[i], nullptr, work, (void*)i);
    for (size_t i = 0; i < THREADS; ++i) pthread_join(threads[i], nullptr);
    pthread_barrier_destroy(&barrier);
}
extern "C" unsigned long problem_size() { return sizeof(Problem); }
"""


@dataclass
class Emulator:
    """Stands in for `cuda_pass.launch`; compiles each pass once into `folder`."""

    folder: Path
    libraries: dict[tuple[str, ...], ctypes.CDLL] = field(default_factory=dict)

    def launch(self, work: Pass, problem: Problem, planes: int, _: torch.device) -> None:
        """Run a pass on tensors of the CPU."""
        blocks = planes * problem.tiles_x * problem.tiles_y
        self._library(work.macros() | {"THREADS": str(THREADS)}).emulate(ctypes.byref(problem), blocks)

    def _library(self, macros: dict[str, str]) -> ctypes.CDLL:
        key = tuple(f"-D{name}={value}" for name, value in macros.items())
        if key not in self.libraries:
            assert COMPILER is not None
            shim, built = self.folder / "emulator.cpp", self.folder / f"pass{len(self.libraries)}.so"
            shim.write_text(SHIM)
            flags = ("-O1", "-w", "-std=c++17", "-fPIC", "-shared", "-pthread", f'-DSOURCE="{cuda_launch.SOURCE}"')
            subprocess.run([COMPILER, *flags, *key, str(shim), "-o", str(built)], check=True)
            lib = ctypes.CDLL(str(built))
            lib.problem_size.restype = ctypes.c_ulong
            assert lib.problem_size() == ctypes.sizeof(Problem)
            self.libraries[key] = lib
        return self.libraries[key]
