// Filtered leaky ReLU on the CPU: bias, up-sample, leaky ReLU, clamp and down-sample of one image plane at a time,
// in bands of rows that stay in the cache, so that the up-sampled grid is never stored. Plain C interface.
//
// Notation. U, D are the up and down factors. A filter has at most 6 U or 6 D taps and is padded with zeros.
// Grid sample (Y, X) is a sample of the up-sampled image. Rows are stored split by phase: sample X = D e + a lies at
// element e of phase a, so that the down filter reads contiguous vectors. "Row of phases" below means such a row.
//
// The backward pass is the same operator with the roles of the two filters exchanged; the leaky ReLU becomes a
// product with the mask that the forward pass has left (two bits for every grid sample: not positive, clamped).

#include "common.h"

namespace {

using namespace sg3;

constexpr int kTaps = 6;  // taps per phase

struct Mark {  // what the forward pass leaves for one vector of grid samples
    Bits slope, clamp;
};

constexpr int floor_div(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }
constexpr int floor_mod(int a, int b) { return a - floor_div(a, b) * b; }
constexpr int round_up(int a, int b) { return floor_div(a + b - 1, b) * b; }

// ---------------------------------------------------------------------------------------------------------------
// Up-sampling.

// One row: out[q][m] = sum_k taps[q + U k] in[m + 5 - k].
template <int U>
void up_row(const float* in, const float* taps, float* const* out, int vectors) {
    Vec f[U * kTaps];
    EACH(U * kTaps, t, f[t] = splat(taps[t]););
    for (int v = 0; v < vectors; ++v) {
        Vec x[kTaps];
        EACH(kTaps, k, x[k] = load(in + v * kLanes + kTaps - 1 - k););
        EACH(U, q, {
            Vec acc = x[0] * f[q];
            EACH(kTaps - 1, k, acc = fma(x[k + 1], f[q + U * (k + 1)], acc););
            store(out[q] + v * kLanes, acc);
        });
    }
}

enum class Act { kPlain, kMark, kUseMark };  // leaky ReLU; the same, leaving marks; its gradient, by those marks

template <Act A>
INLINE Vec activate(Vec v, Vec slope, Vec clamp, Mark* mark) {
    if constexpr (A == Act::kUseMark) return zero_where(scale_where(v, mark->slope, slope), mark->clamp);
    const Bits low = not_positive(v);
    v = scale_where(v, low, slope);
    const Vec clipped = clip(v, clamp);
    if constexpr (A == Act::kMark) *mark = Mark{low, differ(v, clipped)};
    return clipped;
}

// G groups of U grid rows from G + 5 rows `in`: out[g U + q] = act(sum_k taps[q + U k] in[g + 5 - k]).
template <int U, int G, Act A>
void up_column(const float* const* in, const float* taps, float* const* out, Mark* const* marks, int vectors,
               float slope_, float clamp_) {
    const Vec slope = splat(slope_), clamp = splat(clamp_);
    Vec f[U * kTaps];
    EACH(U * kTaps, t, f[t] = splat(taps[t]););
    for (int v = 0; v < vectors; ++v) {
        const int at = v * kLanes;
        Vec x[G + kTaps - 1];
        EACH(G + kTaps - 1, i, x[i] = load(in[i] + at););
        EACH(G * U, r, {
            constexpr int g = r / U, q = r % U;
            Vec acc = x[g + kTaps - 1] * f[q];
            EACH(kTaps - 1, k, acc = fma(x[g + kTaps - 2 - k], f[q + U * (k + 1)], acc););
            store(out[r] + at, activate<A>(acc, slope, clamp, marks[r] + v));
        });
    }
}

constexpr int kRadialPairs = 4;  // pairs of grid rows in one call of up_radial

template <class Get>
INLINE void stream_radial(const float* const* in, const float* c, Vec* acc, Get&& get) {
    Vec f[6];
    EACH(6, r, f[r] = splat(c[r]););
    EACH(kRadialPairs + 5, i, {
        const Vec t = get(in[i]);
        EACH(2 * kRadialPairs, y, {
            constexpr int tap = 2 * (y / 2 + 5 - i) + y % 2;
            if constexpr (tap >= 0 && tap < 12) acc[y] = fma(t, f[tap < 6 ? tap : 11 - tap], acc[y]);
        });
    });
}

// Full 12 x 12 filter with all mirror symmetries, U = 2: four pairs of grid rows, two phases each, from nine rows.
// The phases of a row have mirrored taps, so sums and differences of mirrored samples serve both at once:
// c[0..2][r] are half sums, c[3..5][r] half differences of mirrored taps of the even phase of filter row r < 6.
void up_radial(const float* const* in, const float (*c)[6], float* const* out, Mark* const* marks, int vectors,
               int phase_stride, int mark_stride, float slope_) {
    const Vec slope = splat(slope_);
    for (int v = 0; v < vectors; ++v) {
        Vec same[2 * kRadialPairs], opposite[2 * kRadialPairs];
        EACH(2 * kRadialPairs, i, same[i] = opposite[i] = Vec{};);
        for (int k = 0; k < 3; ++k) {
            const int near = v * kLanes + kTaps - 1 - k, far = v * kLanes + k;
            stream_radial(in, c[k], same, [&](const float* row) { return load(row + near) + load(row + far); });
        }
        for (int k = 0; k < 3; ++k) {
            const int near = v * kLanes + kTaps - 1 - k, far = v * kLanes + k;
            stream_radial(in, c[3 + k], opposite,
                          [&](const float* row) { return load(row + near) - load(row + far); });
        }
        EACH(2 * kRadialPairs, y, {
            Mark* m = marks[y] + v;
            float* o = out[y] + v * kLanes;
            store(o, activate<Act::kUseMark>(same[y] + opposite[y], slope, slope, m));
            store(o + phase_stride, activate<Act::kUseMark>(same[y] - opposite[y], slope, slope, m + mark_stride));
        });
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Down-sampling.

constexpr int kDownRows = 4;  // output rows of one call of down_column

// out[o] = sum_t taps[t] in[D o + t] over rows that lie `stride` apart.
template <int D>
void down_column(const float* in, int stride, const float* taps, float* const* out, int vectors) {
    Vec f[D * kTaps];
    EACH(D * kTaps, t, f[t] = splat(taps[t]););
    for (int v = 0; v < vectors; ++v) {
        Vec acc[kDownRows];
        EACH(kDownRows, o, acc[o] = Vec{};);
        const float* p = in + v * kLanes;
        EACH(D * (kDownRows - 1) + D * kTaps, r, {
            const Vec x = load(p);
            p += stride;
            EACH(kDownRows, o, {
                constexpr int t = r - D * o;
                if constexpr (t >= 0 && t < D * kTaps) acc[o] = fma(x, f[t], acc[o]);
            });
        });
        EACH(kDownRows, o, store(out[o] + v * kLanes, acc[o]););
    }
}

// out[o][x] = sum_t taps[t] in[o][offsets[t] + x]; returns the sum over all valid outputs.
template <int D>
float down_row(const float* const* in, const int* offsets, const float* taps, float* const* out, int width,
               int rows) {
    Vec total = Vec{};
    for (int x = 0; x < width; x += kLanes) {
        Vec acc[kDownRows];
        EACH(kDownRows, o, acc[o] = Vec{};);
        EACH(D * kTaps, t, {
            const Vec f = splat(taps[t]);
            const int at = offsets[t] + x;
            EACH(kDownRows, o, acc[o] = fma(load(in[o] + at), f, acc[o]););
        });
        const int n = std::min(kLanes, width - x);
        for (int o = 0; o < rows; ++o) {
            Vec y = acc[0];
            EACH(kDownRows - 1, j, if (o == j + 1) y = acc[j + 1];);
            if (n == kLanes) {
                store(out[o] + x, y);
                total = total + y;
            } else {
                store_first(out[o] + x, y, n);
                float part[kLanes];
                store(part, y);
                for (int i = n; i < kLanes; ++i) part[i] = 0;
                total = total + load(part);
            }
        }
    }
    return sum(total);
}

constexpr int kRadialRows = 8;  // output rows of one call of down_radial

// Full 12 x 12 filter with all mirror symmetries, D = 2. For each of the six pairs of mirrored filter columns the
// sum of the two samples streams through the rows into all accumulators; c[j][r] = filter row r < 6, column j < 6.
void down_radial(const float* in, int stride, int phase_stride, const float (*c)[6], float* const* out, int width,
                 int rows) {
    for (int x = 0; x < width; x += kLanes) {
        Vec acc[kRadialRows];
        EACH(kRadialRows, o, acc[o] = Vec{};);
        for (int j = 0; j < 6; ++j) {
            const float* a = in + x + (j & 1) * phase_stride + j / 2;
            const float* b = in + x + ((11 - j) & 1) * phase_stride + (11 - j) / 2;
            Vec f[6];
            EACH(6, r, f[r] = splat(c[j][r]););
            EACH(2 * kRadialRows + 10, r, {
                const Vec t = load(a) + load(b);
                a += stride;
                b += stride;
                EACH(kRadialRows, o, {
                    constexpr int tap = r - 2 * o;
                    if constexpr (tap >= 0 && tap < 12) acc[o] = fma(t, f[tap < 6 ? tap : 11 - tap], acc[o]);
                });
            });
        }
        const int n = std::min(kLanes, width - x);
        EACH(kRadialRows, o, {
            if (o < rows) {
                if (n == kLanes) store(out[o] + x, acc[o]);
                else store_first(out[o] + x, acc[o], n);
            }
        });
    }
}

// Rewrite a row split into A phases as one split into B: coordinate c = A s + p of the source becomes coordinate
// c - delta = B t + q of the target. Writes t = 0 .. count - 1 of all target phases.
// One of A and B is a multiple of the other.
void rephase(const float* const* source, int A, float* const* target, int B, int delta, int count) {
    const int ratio = A / B;
    const auto at = [&](int c) { return source[floor_mod(c, A)] + floor_div(c, A); };
    for (int q = 0; q < B; ++q) {
        float* t = target[q];
        const float* s = at(q + delta);
        if (ratio == 0) {
            if (B == 2 * A) for (int i = 0; i < count; ++i) t[i] = s[2 * i];
            else for (int i = 0; i < count; ++i) t[i] = s[4 * i];
        } else if (ratio == 2) {
            const float* s2 = at(q + delta + B);
            for (int i = 0; i < (count + 1) / 2; ++i) {
                t[2 * i] = s[i];
                t[2 * i + 1] = s2[i];
            }
        } else {
            for (int k = 0; k < ratio; ++k, s = at(q + delta + k * B))
                for (int i = 0; ratio * i + k < count; ++i) t[ratio * i + k] = s[i];
        }
    }
}

// Rows of an image arrive from memory; ask for them ahead (past the end of the image it is a hint without effect).
constexpr int kPrefetchRows = 4;
INLINE void prefetch(const float* p, int floats) {
    for (int i = 0; i < floats; i += 16) __builtin_prefetch(p + i);
}

// Where the phases of a row lie: [slack, elements, slack] for each; `at` is element 0 of phase 0.
struct Layout {
    int phases, vectors, slack, stride;
    Layout(int phases_, int elements, int slack_)
        : phases(phases_), vectors(round_up(elements, kLanes) / kLanes), slack(round_up(slack_, kLanes)),
          stride(vectors * kLanes + 2 * slack) {}
    int size() const { return phases * stride; }
};

// The rows of an image, up-sampled along x (bias added, zero outside of the image), made when they are asked for.
class WideRows {
  public:
    WideRows(int height, int width, int up, int offset, const float* taps, int grid_w, Layout layout)
        : height_(height), width_(width), up_(up), offset_(offset), taps_(taps), elements_(grid_w), layout_(layout),
          first_(floor_div(offset, up)),
          vectors_(round_up(floor_div(offset + grid_w - 1, up) - first_ + 1, kLanes) / kLanes),
          line_((vectors_ + 2) * kLanes), split_(up * split_stride()), rows_((size_t)kRing * layout.size()),
          zero_(layout.size()) {}

    void start(const float* image, float bias) {
        image_ = image;
        bias_ = bias;
        next_ = INT32_MIN;
    }

    // Element 0 of `count` rows from row `first`; calls must not go back by more than the ring holds.
    void get(int first, int count, const float** out) {
        for (int i = 0; i < count; ++i) {
            const int y = first + i;
            if (y < 0 || y >= height_) {
                out[i] = zero_ + layout_.slack;
                continue;
            }
            float* row = rows_ + (size_t)(y % kRing) * layout_.size() + layout_.slack;
            if (y >= next_) {
                make(y, row);
                next_ = y + 1;
            }
            out[i] = row;
        }
    }

  private:
    static constexpr int kRing = 16;
    int split_stride() const { return (vectors_ + 4) * kLanes; }

    void make(int y, float* row) {
        prefetch(image_ + (size_t)(y + kPrefetchRows) * width_, width_);
        const float* source = image_ + (size_t)y * width_ + first_ - (kTaps - 1);
        const int length = vectors_ * kLanes + kTaps - 1;
        const int from = std::clamp(kTaps - 1 - first_, 0, length);
        const int to = std::clamp(width_ + kTaps - 1 - first_, from, length);
        float* line = line_;
        const Vec bias = splat(bias_);
        std::fill(line, line + from, 0.0f);
        int i = from;
        for (; i + kLanes <= to; i += kLanes) store(line + i, load(source + i) + bias);
        for (; i < to; ++i) line[i] = source[i] + bias_;
        std::fill(line + to, line + length, 0.0f);
        float* out[4];
        for (int q = 0; q < up_; ++q) {
            const int c = up_ * first_ + q - offset_;  // grid coordinate of the first sample of this phase
            out[q] = up_ == layout_.phases ? row + floor_mod(c, up_) * layout_.stride + floor_div(c, up_)
                                           : split_ + q * split_stride() + 2 * kLanes;
        }
        if (up_ == 1) up_row<1>(line, taps_, out, vectors_);
        else if (up_ == 2) up_row<2>(line, taps_, out, vectors_);
        else up_row<4>(line, taps_, out, vectors_);
        if (up_ == layout_.phases) return;
        float* target[4];
        for (int a = 0; a < layout_.phases; ++a) target[a] = row + a * layout_.stride;
        rephase(out, up_, target, layout_.phases, offset_ - up_ * first_,
                (elements_ + layout_.phases - 1) / layout_.phases);
    }

    int height_, width_, up_, offset_;
    const float* taps_;
    int elements_;
    Layout layout_;
    int first_, vectors_;
    Scratch line_, split_, rows_, zero_;
    const float* image_ = nullptr;
    float bias_ = 0;
    int next_ = 0;
};

// The rows of an image with a zero margin of 5 to the left and enough to the right, for `up_radial`.
class PaddedRows {
  public:
    PaddedRows(int height, int width, int length)
        : height_(height), width_(width), stride_(round_up(length + kTaps, kLanes) + kLanes),
          rows_((size_t)kRing * stride_), zero_(stride_) {}
    void start(const float* image) {
        image_ = image;
        next_ = INT32_MIN;
    }
    void get(int first, int count, const float** out) {
        for (int i = 0; i < count; ++i) {
            const int y = first + i;
            if (y < 0 || y >= height_) {
                out[i] = zero_;
                continue;
            }
            float* row = rows_ + (size_t)(y % kRing) * stride_;
            if (y >= next_) {
                prefetch(image_ + (size_t)(y + 2 * kPrefetchRows) * width_, width_);
                std::memcpy(row + kTaps - 1, image_ + (size_t)y * width_, sizeof(float) * width_);
                next_ = y + 1;
            }
            out[i] = row;
        }
    }

  private:
    static constexpr int kRing = 16;
    int height_, width_, stride_;
    Scratch rows_, zero_;
    const float* image_ = nullptr;
    int next_ = 0;
};

// A window of consecutive grid rows that moves down the plane; `make(y, rows)` computes `step` of them.
class Window {
  public:
    Window(int capacity, int step, int row_size) : step_(step), size_(row_size), data_((size_t)capacity * row_size) {}
    void start(int row) { base_ = end_ = row; }

    template <class Make>
    void ensure(int from, int until, Make&& make) {  // afterwards rows from .. until - 1 are there
        const int drop = std::min(from, end_) - base_;
        if (drop > 0) {
            float* to = data_;
            const float* last = row(end_);
            for (const float* p = row(base_ + drop); p < last; p += kLanes, to += kLanes) store(to, load(p));
            base_ += drop;
        }
        for (; end_ < until; end_ += step_) make(end_, row(end_));
    }
    float* row(int y) const { return data_ + (size_t)(y - base_) * size_; }

  private:
    int step_, size_;
    Scratch data_;
    int base_ = 0, end_ = 0;
};

template <int U, Act A>
void up_columns(const float* const* in, const float* taps, float* row, Mark* const* marks, const Layout& layout,
                int mark_stride, float slope, float clamp) {
    for (int a = 0; a < layout.phases; ++a) {
        const float* source[4 / U + kTaps - 1];
        float* target[4];
        Mark* mark[4];
        for (int i = 0; i < 4 / U + kTaps - 1; ++i) source[i] = in[i] + a * layout.stride;
        for (int i = 0; i < 4; ++i) {
            target[i] = row + (size_t)i * layout.size() + a * layout.stride;
            mark[i] = marks[i] + a * mark_stride;
        }
        up_column<U, 4 / U, A>(source, taps, target, mark, layout.vectors, slope, clamp);
    }
}

template <Act A>
void up_columns(int up, const float* const* in, const float* taps, float* row, Mark* const* marks,
                const Layout& layout, int mark_stride, float slope, float clamp) {
    if (up == 1) up_columns<1, A>(in, taps, row, marks, layout, mark_stride, slope, clamp);
    else if (up == 2) up_columns<2, A>(in, taps, row, marks, layout, mark_stride, slope, clamp);
    else up_columns<4, A>(in, taps, row, marks, layout, mark_stride, slope, clamp);
}

// Separable down-sampling by `down` of four output rows from grid rows with `layout`. The filter's coordinate 0 is
// grid column -offset.
class Narrow {
  public:
    Narrow(int down, const float* taps_x, const float* taps_y, int offset, int width, const Layout& grid)
        : down_(down), taps_x_(taps_x), taps_y_(taps_y), offset_(offset), width_(width), grid_(grid),
          rows_layout_(grid.phases, grid.vectors * kLanes, slack(down, offset, width, grid)),
          line_layout_(down, round_up(width, kLanes) + kTaps, kLanes),
          rows_((size_t)kDownRows * rows_layout_.size()), lines_((size_t)kDownRows * line_layout_.size()) {
        for (int t = 0; t < down * kTaps; ++t) {
            const int c = down == grid.phases ? t - offset : t;
            offsets_[t] = floor_mod(c, down) * (down == grid.phases ? rows_layout_ : line_layout_).stride +
                          floor_div(c, down);
        }
    }

    // Returns the sum over the outputs.
    float run(const float* row, float* const* out, int rows) {
        if (down_ == 1) return run<1>(row, out, rows);
        if (down_ == 2) return run<2>(row, out, rows);
        return run<4>(row, out, rows);
    }

  private:
    static int slack(int down, int offset, int width, const Layout& grid) {
        const int last = down * (round_up(width, kLanes) + kTaps + kLanes) - offset;
        return std::max({kLanes, offset / grid.phases + 2 * kLanes,
                         last / grid.phases - grid.vectors * kLanes + 2 * kLanes});
    }

    template <int D>
    float run(const float* row, float* const* out, int rows) {
        const float* in[kDownRows];
        for (int a = 0; a < grid_.phases; ++a) {
            float* target[kDownRows];
            for (int o = 0; o < kDownRows; ++o) target[o] = narrow_row(o) + a * rows_layout_.stride;
            down_column<D>(row + a * grid_.stride, grid_.size(), taps_y_, target, grid_.vectors);
        }
        for (int o = 0; o < kDownRows; ++o) {
            in[o] = narrow_row(o);
            if (D == grid_.phases) continue;
            const float* source[4];
            float* target[4];
            for (int a = 0; a < grid_.phases; ++a) source[a] = narrow_row(o) + a * rows_layout_.stride;
            float* line = lines_ + (size_t)o * line_layout_.size() + line_layout_.slack;
            for (int q = 0; q < D; ++q) target[q] = line + q * line_layout_.stride;
            rephase(source, grid_.phases, target, D, -offset_, round_up(width_, kLanes) + kTaps);
            in[o] = line;
        }
        return down_row<D>(in, offsets_, taps_x_, out, width_, rows);
    }
    float* narrow_row(int o) { return rows_ + (size_t)o * rows_layout_.size() + rows_layout_.slack; }

    int down_;
    const float *taps_x_, *taps_y_;
    int offset_, width_;
    Layout grid_, rows_layout_, line_layout_;
    Scratch rows_, lines_;
    int offsets_[24];
};

// ---------------------------------------------------------------------------------------------------------------
// The operator.

struct Problem {  // both directions of one call
    int planes, channels;
    int in_h, in_w, grid_h, grid_w, out_h, out_w;
    int up, down, radial;
    int offset_x, offset_y;  // grid coordinate 0 is sample `offset` of the full convolution with the up filter
    float up_taps_x[24], up_taps_y[24];  // the gains are in those along x
    float down_taps[24];                 // as a correlation
    float radial_down[6][6], radial_up[6][6];
    float slope, clamp;

    Layout layout() const { return Layout(down, (grid_w + down - 1) / down, kLanes); }
    size_t marks() const { return (size_t)grid_h * down * layout().vectors; }  // of one plane
};

constexpr int kBand = 16;  // output rows for which the grid rows are made together

// Marks of `count` rows from grid row y; rows outside of the grid share a dummy row.
void mark_rows(const Problem& p, Mark* marks, Mark* dummy, int y, int count, Mark** out) {
    const int size = p.down * p.layout().vectors;
    for (int i = 0; i < count; ++i)
        out[i] = marks && y + i >= 0 && y + i < p.grid_h ? marks + (size_t)(y + i) * size : dummy;
}

class Forward {
  public:
    explicit Forward(const Problem& p)
        : p_(p), layout_(p.layout()),
          wide_(p.in_h, p.in_w, p.up, p.offset_x, p.up_taps_x, p.grid_w, layout_),
          window_(p.down * (kBand + kTaps) + 8, 4, layout_.size()),
          narrow_(p.down, p.down_taps, p.down_taps, 0, p.out_w, layout_),
          dummy_(p.down * layout_.vectors) {}

    void plane(const float* x, float bias, float* y, Mark* marks) {
        wide_.start(x, bias);
        const int group = floor_div(p_.offset_y, p_.up);
        window_.start(group * p_.up - p_.offset_y);
        for (int o = 0; o < p_.out_h; o += kBand) {
            const int rows = std::min(kBand, p_.out_h - o);
            window_.ensure(p_.down * o, p_.down * (o + rows - 1 + kTaps),
                           [&](int at, float* row) { make(at, row, marks); });
            if (p_.radial) down<true>(o, rows, y);
            else down<false>(o, rows, y);
        }
    }

  private:
    void make(int y, float* row, Mark* marks) {
        const float* in[9];
        Mark* mark[4];
        wide_.get((y + p_.offset_y) / p_.up - (kTaps - 1), 4 / p_.up + kTaps - 1, in);
        mark_rows(p_, marks, dummy_.data(), y, 4, mark);
        row += layout_.slack;
        if (marks)
            up_columns<Act::kMark>(p_.up, in, p_.up_taps_y, row, mark, layout_, layout_.vectors, p_.slope, p_.clamp);
        else
            up_columns<Act::kPlain>(p_.up, in, p_.up_taps_y, row, mark, layout_, layout_.vectors, p_.slope, p_.clamp);
    }

    template <bool kRadial>
    void down(int o, int rows, float* y) {
        constexpr int step = kRadial ? kRadialRows : kDownRows;
        for (int i = 0; i < rows; i += step) {
            float* out[step];
            for (int j = 0; j < step; ++j) out[j] = y + (size_t)std::min(o + i + j, p_.out_h - 1) * p_.out_w;
            const float* row = window_.row(p_.down * (o + i)) + layout_.slack;
            const int n = std::min(step, rows - i);
            if constexpr (kRadial) down_radial(row, layout_.size(), layout_.stride, p_.radial_down, out, p_.out_w, n);
            else narrow_.run(row, out, n);
        }
    }

    const Problem& p_;
    Layout layout_;
    WideRows wide_;
    Window window_;
    Narrow narrow_;
    std::vector<Mark> dummy_;
};

class Backward {
  public:
    explicit Backward(const Problem& p)
        : p_(p), layout_(p.layout()), step_(p.radial ? 2 * kRadialPairs : 4),
          wide_(p.out_h, p.out_w, p.down, 0, p.down_taps, p.grid_w, layout_),
          padded_(p.out_h, p.out_w, (layout_.vectors + 1) * kLanes),
          window_(p.up * (kBand + kTaps) + 2 * step_, step_, layout_.size()),
          narrow_(p.up, p.up_taps_x, p.up_taps_y, p.offset_x, p.in_w, layout_), dummy_(p.down * layout_.vectors) {}

    // Gradient dx [in_h, in_w] for dy [out_h, out_w]; returns the sum over dx.
    float plane(const float* dy, const Mark* marks_, float* dx) {
        Mark* marks = const_cast<Mark*>(marks_);
        wide_.start(dy, 0);
        padded_.start(dy);
        window_.start(floor_div(-p_.offset_y, step_) * step_);
        double total = 0;
        for (int i = 0; i < p_.in_h; i += kBand) {
            const int rows = std::min(kBand, p_.in_h - i);
            window_.ensure(p_.up * i - p_.offset_y, p_.up * (i + rows - 1 + kTaps) - p_.offset_y,
                           [&](int at, float* row) { make(at, row, marks); });
            for (int j = 0; j < rows; j += kDownRows) {
                float* out[kDownRows];
                for (int k = 0; k < kDownRows; ++k) out[k] = dx + (size_t)std::min(i + j + k, p_.in_h - 1) * p_.in_w;
                total += narrow_.run(window_.row(p_.up * (i + j) - p_.offset_y) + layout_.slack, out,
                                     std::min(kDownRows, rows - j));
            }
        }
        return (float)total;
    }

  private:
    void make(int y, float* row, Mark* marks) {
        if (y < 0 || y >= p_.grid_h) {
            std::fill(row, row + (size_t)step_ * layout_.size(), 0.0f);
            return;
        }
        const float* in[9];
        Mark* mark[2 * kRadialPairs];
        mark_rows(p_, marks, dummy_.data(), y, step_, mark);
        row += layout_.slack;
        if (!p_.radial) {
            wide_.get(y / p_.down - (kTaps - 1), 4 / p_.down + kTaps - 1, in);
            up_columns<Act::kUseMark>(p_.down, in, p_.down_taps, row, mark, layout_, layout_.vectors, p_.slope, 0);
            return;
        }
        float* out[2 * kRadialPairs];
        for (int i = 0; i < 2 * kRadialPairs; ++i) out[i] = row + (size_t)i * layout_.size();
        padded_.get(y / 2 - (kTaps - 1), kRadialPairs + kTaps - 1, in);
        up_radial(in, p_.radial_up, out, mark, layout_.vectors, layout_.stride, layout_.vectors, p_.slope);
    }

    const Problem& p_;
    Layout layout_;
    int step_;
    WideRows wide_;
    PaddedRows padded_;
    Window window_;
    Narrow narrow_;
    std::vector<Mark> dummy_;
};

}  // namespace

extern "C" {

// Lanes of one vector; a grid row of E samples per phase needs 2 * (lanes / 8) bytes of marks per started vector.
int sg3_lanes() { return kLanes; }

// Let planes run on an existing OpenMP pool: the address of GOMP_parallel, or null for threads of our own.
void sg3_set_parallel(void* function) { g_parallel = reinterpret_cast<Parallel>(function); }

// True if a 12 x 12 filter equals its mirror images, up to rounding.
int sg3_mirrored(const float* f) {
    float largest = 0, difference = 0;
    for (int y = 0; y < 12; ++y) {
        for (int x = 0; x < 12; ++x) {
            const float v = f[12 * y + x];
            largest = std::max(largest, std::fabs(v));
            difference = std::max({difference, std::fabs(v - f[12 * (11 - y) + x]), std::fabs(v - f[12 * y + 11 - x])});
        }
    }
    return difference <= 1e-6f * largest;
}

// Fill in the taps: `up_taps` separable, `down_taps` separable or, if p->radial, 12 x 12; null is the identity.
// Convolutions, unless `flip`. Returns 1 if the full filter is not mirrored.
int sg3_set_filters(Problem* p, const float* up_taps, int up_count, const float* down_taps, int down_count, int flip,
                    float gain) {
    const float one = 1.0f;
    if (!up_taps) up_taps = &one;
    if (!down_taps) down_taps = &one;
    for (int t = 0; t < up_count; ++t) {
        p->up_taps_y[t] = up_taps[flip ? up_count - 1 - t : t];
        p->up_taps_x[t] = p->up_taps_y[t] * gain * (float)(p->up * p->up);
    }
    if (!p->radial) {
        for (int t = 0; t < down_count; ++t) p->down_taps[t] = down_taps[flip ? t : down_count - 1 - t];
        return 0;
    }
    for (int r = 0; r < 6; ++r) {
        const float* row = down_taps + 12 * r;
        for (int k = 0; k < 6; ++k) p->radial_down[k][r] = row[k];
        for (int k = 0; k < 3; ++k) {
            p->radial_up[k][r] = (row[2 * k] + row[10 - 2 * k]) / 2;
            p->radial_up[3 + k][r] = (row[2 * k] - row[10 - 2 * k]) / 2;
        }
    }
    return sg3_mirrored(down_taps) ? 0 : 1;
}

size_t sg3_problem_size() { return sizeof(Problem); }
size_t sg3_mark_bytes(const Problem* p) { return p->marks() * sizeof(Mark) * p->planes; }

// y [planes, out_h, out_w] of x [planes, in_h, in_w] and bias [channels] or null; marks may be null.
int sg3_forward(const Problem* p, const float* x, const float* bias, float* y, void* marks, int threads) {
    return for_planes(p->planes, threads, [&](auto next) {
        Forward forward(*p);
        for (int i = next(); i >= 0; i = next()) {
            Mark* m = marks ? static_cast<Mark*>(marks) + (size_t)i * p->marks() : nullptr;
            forward.plane(x + (size_t)i * p->in_h * p->in_w, bias ? bias[i % p->channels] : 0.0f,
                          y + (size_t)i * p->out_h * p->out_w, m);
        }
    }) ? 0 : 1;
}

// dx [planes, in_h, in_w] and its sum for every plane, for dy [planes, out_h, out_w].
int sg3_backward(const Problem* p, const float* dy, const void* marks, float* dx, float* sums, int threads) {
    return for_planes(p->planes, threads, [&](auto next) {
        Backward backward(*p);
        for (int i = next(); i >= 0; i = next()) {
            sums[i] = backward.plane(dy + (size_t)i * p->out_h * p->out_w,
                                     static_cast<const Mark*>(marks) + (size_t)i * p->marks(),
                                     dx + (size_t)i * p->in_h * p->in_w);
        }
    }) ? 0 : 1;
}

}  // extern "C"
