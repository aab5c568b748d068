// x . Wt, tile by tile of 16 outputs, for the formats that are not computed on matrix tiles (amx_matmul.h).
//
// Up to eight rows are computed together, so that each load of W serves all of them; each row's sum has the same order however
// many rows there are.
#pragma once

#include "kernels/int8_dots.h"
#include "kernels/kernels.h"
#include "kernels/simd.h"
#include "kernels/weight_values.h"

namespace intaglio::ISA {
namespace {

// R rows of one tile. The float sum runs over the groups in order, the same for every R. Minima: whether a w4 or w5 has them.
// With `ahead` the next tile is prefetched meanwhile: otherwise the machine alternates between waiting for memory and computing.
template <Format F, bool Minima, int R>
void quantized_rows(const Matrix& w, const QuantizedRows& q, int64_t tile, int64_t row, bool ahead, float* y, int64_t ldy) {
    constexpr int64_t kBytes = group_bytes(F);
    constexpr int32_t kCentre = F == Format::w5 ? 16 : 8;
    const int64_t groups = group_count(w.in);
    const uint8_t* bytes = (const uint8_t*)w.values + tile * groups * kBytes;
    const uint16_t* scales = w.scales + tile * groups * kTile;
    const uint16_t* minima = Minima ? w.minima + tile * groups * kTile : nullptr;
    const int8_t* x[R];
    for (int r = 0; r < R; r++) x[r] = q.values + (row + r) * groups * kGroup;
    const float* x_scales = q.scales + row * groups;
    const int32_t* x_sums = q.sums + row * groups;
    V16 acc[R];
    for (int r = 0; r < R; r++) acc[r] = V16{};
    for (int64_t g = 0; g < groups; g++) {
        if (ahead) {
            for (int64_t at = 0; at < kBytes; at += 64) __builtin_prefetch(bytes + groups * kBytes + at, 0, 2);
            __builtin_prefetch(scales + groups * kTile, 0, 2);
        }
        I16 d[R];
        int32_t sums[R];
        for (int r = 0; r < R; r++) sums[r] = x_sums[r * groups + g];
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
    for (int r = 0; r < R; r++) store_some(y + (row + r) * ldy + tile * kTile, acc[r], w.out - tile * kTile);
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
            int64_t row = first;
            if constexpr (is_quantized(F)) {
                for (; row + 8 <= last; row += 8) quantized_rows<F, Minima, 8>(w, q, tile, row, row == first, y, ldy);
                for (; row + 4 <= last; row += 4) quantized_rows<F, Minima, 4>(w, q, tile, row, row == first, y, ldy);
                for (; row + 2 <= last; row += 2) quantized_rows<F, Minima, 2>(w, q, tile, row, row == first, y, ldy);
                for (; row < last; row++) quantized_rows<F, Minima, 1>(w, q, tile, row, row == first, y, ldy);
            } else {
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
