// 1 x 1 and 3 x 3 convolutions on the CPU, for few channels and very many pixels.
//
// There a general product of matrices spends as long on packing as on multiplying. Here a thread packs a chunk of
// pixels into panels of a few vectors, which stay in its cache while all outputs are made from them.

// 1 x 1 is y[o][p] = sum_i w[o][i] x[i][p].

#include "common.h"

namespace {

using namespace sg3;

// Outputs and vectors of pixels whose sums are in registers together: 24 of 32, or 12 of 16.
constexpr int kOutputs = kLanes == 16 ? 8 : 4, kVectors = 3;
constexpr int kPanel = kVectors * kLanes;
constexpr int kChunkFloats = 48 << 10;  // of packed pixels: a share of the second cache

struct Product {
    const float* x;
    int inputs, pixels;
};

// Weights [outputs, terms] as [group][term][kOutputs], the last group filled up with zeros.
void pack_weights(const float* w, int outputs, int terms, float* packed) {
    for (int o = 0; o < outputs; ++o)
        for (int t = 0; t < terms; ++t)
            packed[((size_t)(o / kOutputs) * terms + t) * kOutputs + o % kOutputs] = w[(size_t)o * terms + t];
}

// Pixels from..to as [panel][input][kPanel], the last panel filled up with zeros.
void pack_pixels(const Product& p, int from, int to, float* packed) {
    for (int i = 0; i < p.inputs; ++i) {
        const float* x = p.x + (size_t)i * p.pixels + from;
        float* out = packed + (size_t)i * kPanel;
        int left = to - from;
        for (; left >= kPanel; left -= kPanel, x += kPanel, out += (size_t)p.inputs * kPanel)
            EACH(kVectors, v, store(out + v * kLanes, load(x + v * kLanes)););
        if (left > 0) {
            std::fill(out, out + kPanel, 0.0f);
            std::copy(x, x + left, out);
        }
    }
}

// kOutputs outputs of one panel, of which `outputs` rows and `width` pixels are wanted: the sum over inputs and k x k
// taps. Rows of a panel lie `row` floats apart, its inputs `input` floats.
template <int k>
void multiply(const float* w, const float* x, int inputs, size_t input, int row, float* y, size_t pixels, int outputs,
              int width) {
    Vec acc[kOutputs * kVectors];
    EACH(kOutputs * kVectors, a, acc[a] = Vec{};);
    for (int i = 0; i < inputs; ++i, x += input) {
        for (int t = 0; t < k * k; ++t, w += kOutputs) {
            const float* from = x + (t / k) * row + t % k;
            Vec b[kVectors];
            EACH(kVectors, v, b[v] = load(from + v * kLanes););
            EACH(kOutputs, o, {
                const Vec a = splat(w[o]);
                EACH(kVectors, v, acc[o * kVectors + v] = fma(a, b[v], acc[o * kVectors + v]););
            });
        }
    }
    EACH(kOutputs, o, {
        if (o < outputs) {
            EACH(kVectors, v, {
                const int n = std::min(kLanes, width - v * kLanes);
                if (n == kLanes) store(y + o * pixels + v * kLanes, acc[o * kVectors + v]);
                else if (n > 0) store_first(y + o * pixels + v * kLanes, acc[o * kVectors + v], n);
            });
        }
    });
}

// ---------------------------------------------------------------------------------------------------------------
// 3 x 3: a thread packs a tile of the picture with its border.

constexpr int kRows = 4, kColumns = 2 * kPanel, kStride = kColumns + kLanes;

struct Picture {
    const float* x;
    int inputs, height, width, padding;
};

// Outputs from row `top` and column `left` on need these: [input][kRows + 2][kStride], zero outside of the picture.
void pack_tile(const Picture& p, int top, int left, float* packed) {
    const int first = left - p.padding;
    const int from = std::clamp(-first, 0, kColumns + 2), to = std::clamp(p.width - first, from, kColumns + 2);
    for (int i = 0; i < p.inputs; ++i) {
        const float* plane = p.x + (size_t)i * p.height * p.width;
        for (int r = 0; r < kRows + 2; ++r, packed += kStride) {
            const int y = top - p.padding + r;
            std::fill(packed, packed + kStride, 0.0f);
            if (y >= 0 && y < p.height) {
                const float* row = plane + (size_t)y * p.width + first;
                std::copy(row + from, row + to, packed + from);
            }
        }
    }
}

}  // namespace

extern "C" {

// y [outputs, pixels] of x [inputs, pixels] and w [outputs, inputs].
int sg3_pointwise(const float* w, const float* x, float* y, int inputs, int outputs, int pixels, int threads) {
    const Product p{x, inputs, pixels};
    const int groups = (outputs + kOutputs - 1) / kOutputs;
    const int chunk = std::max(1, kChunkFloats / inputs / kPanel) * kPanel;
    try {
        Scratch weights((size_t)groups * inputs * kOutputs);
        pack_weights(w, outputs, inputs, weights);
        return for_planes((pixels + chunk - 1) / chunk, threads, [&](auto next) {
            Scratch packed((size_t)chunk * inputs);
            for (int i = next(); i >= 0; i = next()) {
                const int from = i * chunk, to = std::min(pixels, from + chunk);
                pack_pixels(p, from, to, packed);
                for (int at = from; at < to; at += kPanel)
                    for (int g = 0; g < groups; ++g)
                        multiply<1>(weights + (size_t)g * inputs * kOutputs, packed + (size_t)(at - from) * inputs,
                                    inputs, kPanel, 0, y + (size_t)g * kOutputs * pixels + at, pixels,
                                    outputs - g * kOutputs, to - at);
            }
        }) ? 0 : 1;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

// 3 x 3: y [outputs, height + 2 padding - 2, width + 2 padding - 2] of x [inputs, height, width] and
// w [outputs, inputs, 3, 3].
int sg3_conv3(const float* w, const float* x, float* y, int inputs, int outputs, int height, int width, int padding,
              int threads) {
    const Picture p{x, inputs, height, width, padding};
    const int rows = height + 2 * padding - 2, columns = width + 2 * padding - 2;
    const int groups = (outputs + kOutputs - 1) / kOutputs, terms = 9 * inputs;
    const int across = (columns + kColumns - 1) / kColumns, down = (rows + kRows - 1) / kRows;
    const size_t pixels = (size_t)rows * columns;
    try {
        Scratch weights((size_t)groups * terms * kOutputs);
        pack_weights(w, outputs, terms, weights);
        return for_planes(across * down, threads, [&](auto next) {
            constexpr size_t input = (kRows + 2) * kStride;
            Scratch packed(inputs * input + kLanes);
            for (int i = next(); i >= 0; i = next()) {
                const int top = i / across * kRows, left = i % across * kColumns;
                const int bottom = std::min(rows, top + kRows), right = std::min(columns, left + kColumns);
                pack_tile(p, top, left, packed);
                for (int g = 0; g < groups; ++g)
                    for (int r = top; r < bottom; ++r)
                        for (int c = left; c < right; c += kPanel)
                            multiply<3>(weights + (size_t)g * terms * kOutputs,
                                        packed + (size_t)(r - top) * kStride + (c - left), inputs, input, kStride,
                                        y + g * kOutputs * pixels + (size_t)r * columns + c, pixels,
                                        outputs - g * kOutputs, right - c);
            }
        }) ? 0 : 1;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

}  // extern "C"
