// What the kernels share: vectors of the widest kind that the compiler was told about, unrolled loops, scratch memory
// and threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace sg3 {

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
using Vec = __m512;
using Bits = uint16_t;
constexpr int kLanes = 16;
INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
INLINE void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
INLINE void store_first(float* p, Vec v, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v); }
INLINE Vec splat(float f) { return _mm512_set1_ps(f); }
INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE Bits not_positive(Vec v) { return _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NGT_UQ); }
INLINE Bits differ(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_OQ); }
INLINE Vec scale_where(Vec v, Bits m, Vec f) { return _mm512_mask_mul_ps(v, m, v, f); }
INLINE Vec zero_where(Vec v, Bits m) { return _mm512_maskz_mov_ps((__mmask16)~m, v); }
INLINE Vec clip(Vec v, Vec c) { return _mm512_min_ps(c, _mm512_max_ps(-c, v)); }  // in this order NaN stays NaN
INLINE float sum(Vec v) { return _mm512_reduce_add_ps(v); }
#else
constexpr int kLanes = 8;
typedef float Vec __attribute__((vector_size(32)));
typedef int32_t Ivec __attribute__((vector_size(32)));
using Bits = uint8_t;
INLINE Vec load(const float* p) { Vec v; std::memcpy(&v, p, sizeof v); return v; }
INLINE void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
INLINE void store_first(float* p, Vec v, int n) { std::memcpy(p, &v, sizeof(float) * n); }
INLINE Vec splat(float f) { return Vec{} + f; }
INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }  // contracted by the compiler where the CPU can
INLINE Vec select(Ivec m, Vec a, Vec b) { return (Vec)((m & (Ivec)a) | (~m & (Ivec)b)); }
#if defined(__AVX2__)
INLINE Bits pack(Ivec m) { return (Bits)_mm256_movemask_ps((__m256)m); }
#else
INLINE Bits pack(Ivec m) {
    Bits bits = 0;
    for (int i = 0; i < kLanes; ++i) bits |= (Bits)((m[i] & 1) << i);
    return bits;
}
#endif
INLINE Ivec unpack(Bits m) {
    const Ivec bit = {1, 2, 4, 8, 16, 32, 64, 128};
    return ((Ivec{} + (int)m) & bit) != 0;
}
INLINE Bits not_positive(Vec v) { return pack(~(v > 0.0f)); }
INLINE Bits differ(Vec a, Vec b) { return pack((a > b) | (a < b)); }
INLINE Vec scale_where(Vec v, Bits m, Vec f) { return select(unpack(m), v * f, v); }
INLINE Vec zero_where(Vec v, Bits m) { return select(unpack(m), Vec{}, v); }
INLINE Vec clip(Vec v, Vec c) { v = select(v > c, c, v); return select(v < -c, -c, v); }
INLINE float sum(Vec v) { float s = 0; for (int i = 0; i < kLanes; ++i) s += v[i]; return s; }
#endif

template <int... I, class F>
INLINE void unroll_impl(std::integer_sequence<int, I...>, F&& f) {
    (f(std::integral_constant<int, I>{}), ...);
}
template <int N, class F>
INLINE void unroll(F&& f) {
    unroll_impl(std::make_integer_sequence<int, N>{}, f);
}
// A loop over i = 0 .. n - 1 whose index is a constant, so that arrays of vectors stay in registers.
#define EACH(n, i, ...)                                              \
    unroll<(n)>([&](auto i##_) __attribute__((always_inline)) {      \
        constexpr int i = decltype(i##_)::value;                     \
        __VA_ARGS__                                                  \
    })

// Cache-line aligned scratch memory, zero at first.
class Scratch {
  public:
    explicit Scratch(size_t floats) {
        const size_t bytes = (floats * sizeof(float) + 64) / 64 * 64;
        data_ = static_cast<float*>(std::aligned_alloc(64, bytes));
        if (!data_) throw std::bad_alloc();
        std::memset(data_, 0, bytes);
    }
    ~Scratch() { std::free(data_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    operator float*() const { return data_; }

  private:
    float* data_;
};

// ---------------------------------------------------------------------------------------------------------------
// Threads: planes (or other parts) are taken one by one; every plane is computed the same way by whichever thread takes it.

using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
inline Parallel g_parallel = nullptr;

template <class Work>
bool for_planes(int planes, int threads, Work&& work) {
    struct State {
        Work& work;
        int planes;
        std::atomic<int> next{0};
        std::atomic<bool> failed{false};
    } state{work, planes};
    const auto body = [](void* p) {
        State& s = *static_cast<State*>(p);
        try {
            s.work([&s] {
                const int i = s.next.fetch_add(1);
                return i < s.planes ? i : -1;
            });
        } catch (const std::bad_alloc&) {
            s.failed = true;
        }
    };
    threads = std::clamp(threads, 1, planes);
    if (threads == 1) {
        body(&state);
    } else if (g_parallel) {
        g_parallel(body, &state, (unsigned)threads, 0);
    } else {
        std::vector<std::thread> pool;
        try {
            for (int i = 1; i < threads; ++i) pool.emplace_back(body, &state);
        } catch (const std::system_error&) {  // no more threads to be had: fewer will do
        }
        body(&state);
        for (auto& t : pool) t.join();
    }
    return !state.failed;
}

}  // namespace sg3
