// x . Wt, tile by tile of 16 outputs, for the formats that are not computed on matrix tiles (amx_matmul.h).
//
// Up to eight rows are computed together (four on AVX2), so that each load of W serves all of them; each row's sum has the same
// order however many rows there are.
#pragma once

#include "kernels/int8_dots.h"
#include "kernels/kernels.h"
#include "kernels/simd.h"
#include "kernels/weight_values.h"

namespace intaglio::ISA {
namespace {

// What a piece of the product is computed from: groups [first, last) of one tile, as they are stored or unpacked.
struct TilePart {
    int64_t tile, first, last;
    const uint8_t* bytes;  // of group `first`
};

// R rows of one tile. The float sum runs over the groups in order, the same for every R; where the part does not begin with the
// first group, it goes on from what is in y. Minima: whether a w4 or w5 has them.
// With `ahead` the next tile is prefetched meanwhile: otherwise the machine alternates between waiting for memory and computing.
template <Format F, bool Minima, int R, bool Unpacked = false>
void quantized_rows(const Matrix& w, const QuantizedRows& q, const TilePart& part, int64_t row, bool ahead, float* y,
                    int64_t ldy) {
    constexpr int64_t kBytes = Unpacked ? group_bytes(Format::w8) : group_bytes(F);
    constexpr int32_t kCentre = F == Format::w5 ? 16 : 8;
    const int64_t groups = group_count(w.in), start = part.tile * groups + part.first, outputs = w.out - part.tile * kTile;
    const uint8_t* bytes = part.bytes;
    const uint16_t* scales = w.scales + start * kTile;
    const uint16_t* minima = Minima ? w.minima + start * kTile : nullptr;
    const int8_t* x[R];
    for (int r = 0; r < R; r++) x[r] = q.values + ((row + r) * groups + part.first) * kGroup;
    const float* x_scales = q.scales + row * groups;
    const int32_t* x_sums = q.sums + row * groups;
    float* to = y + row * ldy + part.tile * kTile;
    V16 acc[R];
    for (int r = 0; r < R; r++) acc[r] = part.first ? load_some(to + r * ldy, outputs) : V16{};
    for (int64_t g = part.first; g < part.last; g++) {
        if (ahead) {
            for (int64_t at = 0; at < kBytes; at += 64) __builtin_prefetch(bytes + groups * kBytes + at, 0, 2);
            __builtin_prefetch(scales + groups * kTile, 0, 2);
        }
        I16 d[R];
        int32_t sums[R];
        for (int r = 0; r < R; r++) sums[r] = x_sums[r * groups + g];
#if defined(INTAGLIO_AVX2)
        if constexpr (Unpacked)
            dot_unpacked<R, F == Format::w5>(bytes, x, d);
        else
#endif
            if constexpr (F == Format::w8)
            dot_w8<R>(bytes, x, sums, d);
        else
            dot_small<R, F == Format::w5>(bytes, x, d);
        if constexpr (F != Format::w8 && !Minima)
            for (int r = 0; r < R; r++)
                for (int i = 0; i < kParts; i++) d[r].part[i] -= kCentre * sums[r];
        const V16 scale = load_half(scales);
        for (int r = 0; r < R; r++) {
            const float x_scale = x_scales[r * groups + g];
            if constexpr (Minima) {
                const V16 offset = load_half(minima) * broadcast(-(float)sums[r]);
                acc[r] = fma(fma(to_float(d[r]), scale, offset), broadcast(x_scale), acc[r]);
            } else {
                acc[r] = fma(to_float(d[r]), scale * broadcast(x_scale), acc[r]);
            }
            x[r] += kGroup;
        }
        bytes += kBytes;
        scales += kTile;
        if constexpr (Minima) minima += kTile;
    }
    for (int r = 0; r < R; r++) store_some(to + r * ldy, acc[r], outputs);
}

// Rows that are computed together: their sums, two registers each for AVX2, have to fit into the registers.
#if defined(INTAGLIO_AVX2)
constexpr int kRows = 4;
#else
constexpr int kRows = 8;
#endif

// Rows [first, last) of a part of a tile.
template <Format F, bool Minima, bool Unpacked = false>
void all_rows(const Matrix& w, const QuantizedRows& q, const TilePart& part, int64_t first, int64_t last, bool ahead, float* y,
              int64_t ldy) {
    int64_t row = first;
    for (; row + kRows <= last; row += kRows)
        quantized_rows<F, Minima, kRows, Unpacked>(w, q, part, row, ahead && row == first, y, ldy);
    for (; row + 4 <= last; row += 4) quantized_rows<F, Minima, 4, Unpacked>(w, q, part, row, ahead && row == first, y, ldy);
    for (; row + 2 <= last; row += 2) quantized_rows<F, Minima, 2, Unpacked>(w, q, part, row, ahead && row == first, y, ldy);
    for (; row < last; row++) quantized_rows<F, Minima, 1, Unpacked>(w, q, part, row, ahead && row == first, y, ldy);
}

template <Format F, bool Minima>
void quantized_tile(const Matrix& w, const QuantizedRows& q, int64_t tile, int64_t first, int64_t last, float* y, int64_t ldy) {
    const int64_t groups = group_count(w.in);
    const uint8_t* bytes = (const uint8_t*)w.values + tile * groups * group_bytes(F);
#if defined(INTAGLIO_AVX2)
    // From so many rows on it pays to take the numbers apart once, in parts that stay in the first-level cache.
    constexpr int64_t kManyRows = F == Format::w5 ? 3 : 8, kUnpacked = 32;
    if constexpr (F != Format::w8)
        if (last - first >= kManyRows) {
            alignas(64) uint8_t unpacked[kUnpacked * group_bytes(Format::w8)];
            for (int64_t group = 0; group < groups; group += kUnpacked) {
                const int64_t stop = group + kUnpacked < groups ? group + kUnpacked : groups;
                for (int64_t g = group; g < stop; g++) {
                    const uint8_t* from = bytes + g * group_bytes(F);
                    for (int64_t at = 0; at < group_bytes(F); at += 64)
                        __builtin_prefetch(from + groups * group_bytes(F) + at, 0, 2);
                    unpack_small<F == Format::w5>(from, unpacked + (g - group) * group_bytes(Format::w8));
                }
                all_rows<F, Minima, true>(w, q, TilePart{tile, group, stop, unpacked}, first, last, false, y, ldy);
            }
            return;
        }
#endif
    all_rows<F, Minima>(w, q, TilePart{tile, 0, groups, bytes}, first, last, true, y, ldy);
}

// R rows against one output, for f32 and bf16: sixteen running sums, then their sum, then the tail.
template <Format F, int R>
void plain_rows(const Matrix& w, const float* x, int64_t output, int64_t row, float* y, int64_t ldy) {
    const int64_t start = output * w.in, whole = w.in / 16 * 16;
    V16 acc[R];
    for (int r = 0; r < R; r++) acc[r] = V16{};
    for (int64_t i = 0; i < whole; i += 16) {
        const V16 weight = load_weight<F>(w.values, start + i);
        for (int r = 0; r < R; r++) acc[r] = fma(load(x + (row + r) * w.in + i), weight, acc[r]);
    }
    for (int r = 0; r < R; r++) {
        float total = sum(acc[r]);
        for (int64_t i = whole; i < w.in; i++) total += x[(row + r) * w.in + i] * weight_at<F>(w.values, start + i);
        y[(row + r) * ldy + output] = total;
    }
}

template <Format F, bool Minima = false>
void matmul_format(const Matrix& w, const float* x, const QuantizedRows& q, int64_t rows, float* y, int64_t ldy, int64_t begin,
                   int64_t end) {
    // Rows in pieces that stay in the second-level cache while all tiles are multiplied with them.
    const int64_t piece = (w.in > 0 ? (1 << 20) / w.in : 1) / 8 * 8;
    const int64_t step = piece < 8 ? 8 : piece;
    for (int64_t first = 0; first < rows; first += step) {
        const int64_t last = first + step < rows ? first + step : rows;
        for (int64_t tile = begin; tile < end; tile++) {
            if constexpr (is_quantized(F)) {
                quantized_tile<F, Minima>(w, q, tile, first, last, y, ldy);
            } else {
                int64_t row = first;
                const int64_t stop = tile * kTile + kTile < w.out ? tile * kTile + kTile : w.out;
                for (; row + 4 <= last; row += 4)
                    for (int64_t o = tile * kTile; o < stop; o++) plain_rows<F, 4>(w, x, o, row, y, ldy);
                for (; row < last; row++)
                    for (int64_t o = tile * kTile; o < stop; o++) plain_rows<F, 1>(w, x, o, row, y, ldy);
            }
        }
    }
}

}  // namespace
}  // namespace intaglio::ISA
