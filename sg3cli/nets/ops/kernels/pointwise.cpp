// 1 x 1 convolution on the CPU: y[o][p] = sum_i w[o][i] x[i][p], for few channels and very many pixels.
//
// There a general product of matrices spends as long on packing as on multiplying. Here a thread packs a chunk of
// pixels into panels of a few vectors, which stay in its cache while all outputs are made from them.

#include "common.h"

namespace {

using namespace sg3;

// Outputs and vectors of pixels whose sums are in registers together: 24 of 32, or 12 of 16.
constexpr int kOutputs = kLanes == 16 ? 8 : 4, kVectors = 3;
constexpr int kPanel = kVectors * kLanes;
constexpr int kChunkFloats = 48 << 10;  // of packed pixels: a share of the second cache

struct Product {
    const float *w, *x;
    float* y;
    int inputs, outputs, pixels;
};

// Weights as [group][input][kOutputs], the last group filled up with zeros.
void pack_weights(const Product& p, float* packed) {
    for (int o = 0; o < p.outputs; ++o)
        for (int i = 0; i < p.inputs; ++i)
            packed[((size_t)(o / kOutputs) * p.inputs + i) * kOutputs + o % kOutputs] = p.w[(size_t)o * p.inputs + i];
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

// kOutputs outputs of one panel, of which `outputs` rows and `width` pixels are wanted.
void multiply(const float* w, const float* x, int inputs, float* y, size_t pixels, int outputs, int width) {
    Vec acc[kOutputs * kVectors];
    EACH(kOutputs * kVectors, a, acc[a] = Vec{};);
    for (int i = 0; i < inputs; ++i, w += kOutputs, x += kPanel) {
        Vec b[kVectors];
        EACH(kVectors, v, b[v] = load(x + v * kLanes););
        EACH(kOutputs, o, {
            const Vec a = splat(w[o]);
            EACH(kVectors, v, acc[o * kVectors + v] = fma(a, b[v], acc[o * kVectors + v]););
        });
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

}  // namespace

extern "C" {

// y [outputs, pixels] of x [inputs, pixels] and w [outputs, inputs].
int sg3_pointwise(const float* w, const float* x, float* y, int inputs, int outputs, int pixels, int threads) {
    const Product p{w, x, y, inputs, outputs, pixels};
    const int groups = (outputs + kOutputs - 1) / kOutputs;
    const int chunk = std::max(1, kChunkFloats / inputs / kPanel) * kPanel;
    try {
        Scratch weights((size_t)groups * inputs * kOutputs);
        pack_weights(p, weights);
        return for_planes((pixels + chunk - 1) / chunk, threads, [&](auto next) {
            Scratch packed((size_t)chunk * inputs);
            for (int i = next(); i >= 0; i = next()) {
                const int from = i * chunk, to = std::min(pixels, from + chunk);
                pack_pixels(p, from, to, packed);
                for (int at = from; at < to; at += kPanel)
                    for (int g = 0; g < groups; ++g)
                        multiply(weights + (size_t)g * inputs * kOutputs, packed + (size_t)(at - from) * inputs, inputs,
                                 y + (size_t)g * kOutputs * pixels + at, pixels, outputs - g * kOutputs, to - at);
            }
        }) ? 0 : 1;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

}  // extern "C"
