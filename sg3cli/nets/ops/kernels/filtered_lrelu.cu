// Filtered leaky ReLU on a GPU: bias, up-sample, leaky ReLU, clamp and down-sample of one tile of one image plane for
// each block, so that the up-sampled grid never leaves shared memory. No header is needed: NVRTC compiles it as it is.
//
// Everything about a layer that does not depend on the size of its image is a macro (see `Pass` in cuda_kernel.py):
//   UP, DOWN               factors, 1, 2 or 4
//   UP_TAPS, DOWN_TAPS     taps of the filters, along each axis if full
//   UP_FULL, DOWN_FULL     1: the filter is [taps, taps], 0: separable [taps]
//   UP_REVERSED, ...       1: read the filter from its end. Up-sampling convolves, down-sampling correlates
//   PHASE_X, PHASE_Y       the first grid sample of a tile lies so many samples behind a multiple of UP
//   MODE                   0 leaky ReLU and clamp, 1 the same and leave the mask, 2 the derivative by that mask
//   TYPE                   of images: 0 float, 1 half, 2 bfloat16; all arithmetic is float
//   TILE_H, TILE_W         outputs of a block, multiples of 4
//   THREADS, KERNEL        threads of a block, name of the kernel
//
// The backward pass is this kernel with the roles of the filters exchanged. The mask has two bits for every grid sample
// (1: not positive, 2: clamped); a byte holds four samples of a column, [planes, ceil(grid_h / 4), grid_w].
//
// Rows in shared memory are split by phase: grid column X lies at (X % DOWN) * COLS + X / DOWN, so that neighbouring
// threads, DOWN columns apart, read neighbouring words.

struct Problem {  // mirrored by cuda_kernel.py
    const void* in;            // [planes, in_h, in_w]
    void* out;                 // [planes, out_h, out_w]
    const float* bias;         // [channels] or null
    unsigned char* mask;       // written, read or, without one, null
    const float* up_filter;    // null: one tap of 1
    const float* down_filter;  // likewise
    int channels, in_h, in_w, grid_h, grid_w, out_h, out_w;
    int up_offset_x, up_offset_y;      // grid sample 0 is sample `offset` of the full convolution with the up filter
    int down_offset_x, down_offset_y;  // output 0 begins at grid sample `offset`
    int tiles_x, tiles_y;
    float scale, slope, clamp;  // of the up-sampled samples; the rest as in the operator
};

constexpr int K = (UP_TAPS + UP - 1) / UP;  // taps of each phase
constexpr int UP_SIDE = UP * K;             // taps with the zeros that fill the last phase
constexpr int GRID_H = DOWN * (TILE_H - 1) + DOWN_TAPS;
constexpr int GRID_W = DOWN * (TILE_W - 1) + DOWN_TAPS;
constexpr int COLS = (GRID_W + DOWN - 1) / DOWN;
constexpr int ROW = DOWN * COLS;
constexpr int UP_ROWS = 8;    // grid rows that a thread makes together, from one column of samples in registers
constexpr int DOWN_ROWS = 4;  // output rows, likewise
constexpr int STRIPS = (GRID_H + UP_ROWS - 1) / UP_ROWS;
constexpr int SPAN = (PHASE_Y + UP_ROWS - 1) / UP + K;  // samples under such a column
constexpr int PATCH_H = (STRIPS - 1) * UP_ROWS / UP + SPAN;
constexpr int GROUPS = (PHASE_X + GRID_W - 1) / UP + 1;  // groups of UP grid columns with the same samples
constexpr int PATCH_W = GROUPS + K - 1;

constexpr int PATCH = PATCH_H * PATCH_W, GRID = GRID_H * ROW;
// Two buffers are enough: the grid overwrites the patch unless it is made of it, the narrowed rows the wide ones.
constexpr int BUFFER_A = UP_FULL || GRID > PATCH ? GRID : PATCH;
constexpr int SOURCES = UP_FULL ? PATCH : PATCH_H * ROW, NARROW = DOWN_FULL ? 0 : TILE_H * ROW;
constexpr int BUFFER_B = SOURCES > NARROW ? SOURCES : NARROW;
constexpr int UP_COUNT = UP_FULL ? UP_SIDE * UP_SIDE : UP_SIDE;
constexpr int DOWN_COUNT = DOWN_FULL ? DOWN_TAPS * DOWN_TAPS : DOWN_TAPS;

static_assert(TILE_H % 4 == 0 && TILE_W % 4 == 0, "tiles would not begin at the same phase");
static_assert(4 * (BUFFER_A + BUFFER_B + UP_COUNT + DOWN_COUNT) <= 48 * 1024, "too much shared memory for a block");

__device__ __forceinline__ int floor_div(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }
__device__ constexpr int place(int x) { return x % DOWN * COLS + x / DOWN; }

// ---------------------------------------------------------------------------------------------------------------
// Images. Without a header half and bfloat16 are their bits.

#if TYPE == 0
typedef float Element;
__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ Element from_float(float v) { return v; }
#elif TYPE == 2
typedef unsigned short Element;
__device__ __forceinline__ float to_float(Element bits) { return __uint_as_float((unsigned)bits << 16); }
__device__ __forceinline__ Element from_float(float v) {
    const unsigned bits = __float_as_uint(v);
    if (v != v) return (Element)(bits >> 16 | 0x40);  // rounding could turn it into an infinity
    return (Element)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);  // to the nearest, ties to even
}
#elif defined(__CUDACC__)
typedef unsigned short Element;
__device__ __forceinline__ float to_float(Element bits) {
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
}
__device__ __forceinline__ Element from_float(float v) {
    Element bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
    return bits;
}
#endif  // elsewhere whoever compiles this brings both

// ---------------------------------------------------------------------------------------------------------------
// Filters and input to shared memory.

__device__ __forceinline__ void load_filters(const Problem& p, float* up, float* down) {
    for (int i = threadIdx.x; i < UP_COUNT; i += THREADS) {
        const int y = UP_FULL ? i / UP_SIDE : 0, x = UP_FULL ? i % UP_SIDE : i;
        const int from_y = UP_REVERSED && UP_FULL ? UP_TAPS - 1 - y : y, from_x = UP_REVERSED ? UP_TAPS - 1 - x : x;
        const bool inside = x < UP_TAPS && y < UP_TAPS;
        up[i] = !inside ? 0.0f : p.up_filter ? p.up_filter[from_y * UP_TAPS + from_x] : 1.0f;
    }
    for (int i = threadIdx.x; i < DOWN_COUNT; i += THREADS) {  // a full one is stored by columns
        const int y = DOWN_FULL ? i % DOWN_TAPS : 0, x = DOWN_FULL ? i / DOWN_TAPS : i;
        const int from_y = DOWN_REVERSED && DOWN_FULL ? DOWN_TAPS - 1 - y : y;
        const int from_x = DOWN_REVERSED ? DOWN_TAPS - 1 - x : x;
        down[i] = p.down_filter ? p.down_filter[from_y * DOWN_TAPS + from_x] : 1.0f;
    }
}

// The samples under a tile whose grid begins at (grid_y, grid_x). The bias is not added to the border.
__device__ __forceinline__ void load_patch(const Problem& p, int plane, int grid_y, int grid_x, float* patch) {
    const Element* image = (const Element*)p.in + (long long)plane * p.in_h * p.in_w;
    const float bias = p.bias ? p.bias[plane % p.channels] : 0.0f;
    const int top = floor_div(grid_y + p.up_offset_y, UP) - (K - 1);
    const int left = floor_div(grid_x + p.up_offset_x, UP) - (K - 1);
    for (int i = threadIdx.x; i < PATCH; i += THREADS) {
        const int y = top + i / PATCH_W, x = left + i % PATCH_W;
        const bool inside = y >= 0 && y < p.in_h && x >= 0 && x < p.in_w;
        patch[i] = inside ? to_float(image[y * p.in_w + x]) + bias : 0.0f;
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Up-sampling. Sample s of the full convolution is sum_k taps[s % UP + UP k] x[s / UP - k].

// Separable, along x: patch [PATCH_H, PATCH_W] -> wide [PATCH_H, ROW].
__device__ __forceinline__ void widen(const float* patch, const float* filter, float* wide) {
    float taps[UP_SIDE];
#pragma unroll
    for (int t = 0; t < UP_SIDE; ++t) taps[t] = filter[t];
    for (int i = threadIdx.x; i < PATCH_H * GROUPS; i += THREADS) {
        const int y = i / GROUPS, group = i % GROUPS;
        float samples[K];
#pragma unroll
        for (int k = 0; k < K; ++k) samples[k] = patch[y * PATCH_W + group + K - 1 - k];
#pragma unroll
        for (int q = 0; q < UP; ++q) {
            const int x = UP * group + q - PHASE_X;
            float sum = 0.0f;
#pragma unroll
            for (int k = 0; k < K; ++k) sum += taps[q + UP * k] * samples[k];
            if (x >= 0 && x < GRID_W) wide[y * ROW + place(x)] = sum;
        }
    }
}

// Add to `sums`, UP_ROWS grid rows, what a column of SPAN samples gives by the taps of one column, `stride` apart.
__device__ __forceinline__ void add_column(const float* samples, int sample_stride, const float* taps, int stride, float* sums) {
    float column[SPAN];
#pragma unroll
    for (int i = 0; i < SPAN; ++i) column[i] = samples[i * sample_stride];
#pragma unroll
    for (int j = 0; j < UP_ROWS; ++j) {
        const int q = (PHASE_Y + j) % UP, e = (PHASE_Y + j) / UP + K - 1;
#pragma unroll
        for (int k = 0; k < K; ++k) sums[j] += taps[(q + UP * k) * stride] * column[e - k];
    }
}

// Leaky ReLU and clamp; `bits` is what the mask keeps of a sample.
__device__ __forceinline__ float activate(const Problem& p, float v, unsigned* bits) {
    const bool low = !(v > 0.0f);
    if (low) v *= p.slope;
    const bool clamped = v > p.clamp || v < -p.clamp;  // not a NaN, which goes through
    *bits = (low ? 1u : 0u) | (clamped ? 2u : 0u);
    return !clamped ? v : v > 0.0f ? p.clamp : -p.clamp;
}

// The derivative at grid sample (y, x), where there is one.
__device__ __forceinline__ float differentiate(const Problem& p, float v, const unsigned char* mask, int y, int x) {
    if (y < 0 || y >= p.grid_h || x < 0 || x >= p.grid_w) return 0.0f;
    const unsigned bits = mask[(long long)(y / 4) * p.grid_w + x] >> (2 * (y % 4));
    return bits & 2u ? 0.0f : bits & 1u ? v * p.slope : v;
}

// Along y, or along both at once: `source` is what `widen` made, or the patch -> grid [GRID_H, ROW], activated.
// Neighbouring tiles share grid samples: each writes the masks of those that are before the next tile's first.
__device__ __forceinline__ void make_grid(const Problem& p, int plane, int tile_y, int tile_x, const float* source,
                                 const float* filter, float* grid) {
    const int grid_y = DOWN * TILE_H * tile_y + p.down_offset_y, grid_x = DOWN * TILE_W * tile_x + p.down_offset_x;
    unsigned char* mask = p.mask + (long long)plane * ((p.grid_h + 3) / 4) * p.grid_w;
    const int owned_h = tile_y == p.tiles_y - 1 ? p.grid_h : DOWN * TILE_H;
    const int owned_w = tile_x == p.tiles_x - 1 ? p.grid_w : DOWN * TILE_W;
    float taps[UP_FULL ? 1 : UP_SIDE];  // in registers, if they are few
#pragma unroll
    for (int t = 0; t < (UP_FULL ? 0 : UP_SIDE); ++t) taps[t] = filter[t];
    for (int i = threadIdx.x; i < STRIPS * ROW; i += THREADS) {
        const int y = i / ROW * UP_ROWS, at = i % ROW, x = at % COLS * DOWN + at / COLS;
        if (x >= GRID_W) continue;
        float sums[UP_ROWS] = {};
        if (UP_FULL) {
            const int q = (x + PHASE_X) % UP;
            const float* corner = source + y / UP * PATCH_W + (x + PHASE_X) / UP + K - 1;
            for (int k = 0; k < K; ++k) add_column(corner - k, PATCH_W, filter + q + UP * k, UP_SIDE, sums);
        } else {
            add_column(source + y / UP * ROW + at, ROW, taps, 1, sums);
        }
        unsigned marks = 0;
#pragma unroll
        for (int j = 0; j < UP_ROWS; ++j) {
            float v = sums[j] * p.scale;
            if (MODE == 2) {
                v = differentiate(p, v, mask, grid_y + y + j, grid_x + x);
            } else {
                unsigned bits;
                v = activate(p, v, &bits);
                marks |= bits << (2 * j);
            }
            if (y + j < GRID_H) grid[(y + j) * ROW + at] = v;
        }
        if (MODE == 1 && x < owned_w && grid_x + x < p.grid_w) {
            for (int j = 0; j < UP_ROWS; j += 4)
                if (y + j < owned_h && grid_y + y + j < p.grid_h)
                    mask[(long long)((grid_y + y + j) / 4) * p.grid_w + grid_x + x] = (unsigned char)(marks >> (2 * j));
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Down-sampling: output o is sum_t taps[t] grid[DOWN o + t].

// Add to `sums`, DOWN_ROWS outputs, what a column of the grid (or of narrowed rows) gives by a column of taps.
__device__ __forceinline__ void gather_column(const float* column, const float* taps, float* sums) {
#pragma unroll
    for (int t = 0; t < DOWN * (DOWN_ROWS - 1) + DOWN_TAPS; ++t) {
        const float v = column[t * ROW];
#pragma unroll
        for (int o = 0; o < DOWN_ROWS; ++o)
            if (t >= DOWN * o && t < DOWN * o + DOWN_TAPS) sums[o] += taps[t - DOWN * o] * v;
    }
}

// Separable, along y: grid [GRID_H, ROW] -> narrow [TILE_H, ROW].
__device__ __forceinline__ void narrow_rows(const float* grid, const float* filter, float* narrow) {
    float taps[DOWN_TAPS];
#pragma unroll
    for (int t = 0; t < DOWN_TAPS; ++t) taps[t] = filter[t];
    for (int i = threadIdx.x; i < TILE_H / DOWN_ROWS * ROW; i += THREADS) {
        const int y = i / ROW * DOWN_ROWS, at = i % ROW;
        if (at % COLS * DOWN + at / COLS >= GRID_W) continue;
        float sums[DOWN_ROWS] = {};
        gather_column(grid + DOWN * y * ROW + at, taps, sums);
#pragma unroll
        for (int o = 0; o < DOWN_ROWS; ++o) narrow[(y + o) * ROW + at] = sums[o];
    }
}

__device__ __forceinline__ void write(const Problem& p, int plane, int y, int x, float v) {
    if (y < p.out_h && x < p.out_w)
        ((Element*)p.out)[(long long)plane * p.out_h * p.out_w + y * p.out_w + x] = from_float(v);
}

// Along x: narrow [TILE_H, ROW] -> the output.
__device__ __forceinline__ void write_rows(const Problem& p, int plane, int tile_y, int tile_x, const float* narrow,
                                  const float* filter) {
    float taps[DOWN_TAPS];
#pragma unroll
    for (int t = 0; t < DOWN_TAPS; ++t) taps[t] = filter[t];
    for (int i = threadIdx.x; i < TILE_H * TILE_W; i += THREADS) {
        const int y = i / TILE_W, x = i % TILE_W;
        float sum = 0.0f;
#pragma unroll
        for (int t = 0; t < DOWN_TAPS; ++t) sum += taps[t] * narrow[y * ROW + place(t) + x];
        write(p, plane, TILE_H * tile_y + y, TILE_W * tile_x + x, sum);
    }
}

// Along both with a full filter: grid [GRID_H, ROW] -> the output.
__device__ __forceinline__ void write_full(const Problem& p, int plane, int tile_y, int tile_x, const float* grid,
                                  const float* filter) {
    for (int i = threadIdx.x; i < TILE_H / DOWN_ROWS * TILE_W; i += THREADS) {
        const int y = i / TILE_W * DOWN_ROWS, x = i % TILE_W;
        float sums[DOWN_ROWS] = {};
        for (int t = 0; t < DOWN_TAPS; ++t) {
            float taps[DOWN_TAPS];
#pragma unroll
            for (int r = 0; r < DOWN_TAPS; ++r) taps[r] = filter[t * DOWN_TAPS + r];
            gather_column(grid + DOWN * y * ROW + place(t) + x, taps, sums);
        }
#pragma unroll
        for (int o = 0; o < DOWN_ROWS; ++o) write(p, plane, TILE_H * tile_y + y + o, TILE_W * tile_x + x, sums[o]);
    }
}

// ---------------------------------------------------------------------------------------------------------------

// One block for each tile of each plane, in a row: the second and third dimension of a launch are too small for planes.
extern "C" __global__ void __launch_bounds__(THREADS) KERNEL(const Problem p) {
    __shared__ float up_filter[UP_COUNT], down_filter[DOWN_COUNT], a[BUFFER_A], b[BUFFER_B];
    const int tile_x = (int)(blockIdx.x % p.tiles_x), rest = (int)(blockIdx.x / p.tiles_x);
    const int tile_y = rest % p.tiles_y, plane = rest / p.tiles_y;
    float* patch = UP_FULL ? b : a;
    load_filters(p, up_filter, down_filter);
    load_patch(p, plane, DOWN * TILE_H * tile_y + p.down_offset_y, DOWN * TILE_W * tile_x + p.down_offset_x, patch);
    __syncthreads();
    if (!UP_FULL) {
        widen(patch, up_filter, b);
        __syncthreads();
    }
    make_grid(p, plane, tile_y, tile_x, b, up_filter, a);
    __syncthreads();
    if (DOWN_FULL) {
        write_full(p, plane, tile_y, tile_x, a, down_filter);
        return;
    }
    narrow_rows(a, down_filter, b);
    __syncthreads();
    write_rows(p, plane, tile_y, tile_x, b, down_filter);
}
