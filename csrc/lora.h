// LoRA: x . At down to the rank, v . Bt up again, of a run of rows with one adapter.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace intaglio::ISA {

// The values of an adapter's matrix from `at` on; `count` below 16 at the end of a row.
template <bool Half>
INTAGLIO_INLINE V16 lora_values(const void* values, int64_t at, int64_t count = 16) {
    if constexpr (!Half) return load_some((const float*)values + at, count);
    const uint16_t* halves = (const uint16_t*)values + at;
    if (count >= 16) return load_half(halves);
    uint16_t some[16] = {};
    std::memcpy(some, halves, count * sizeof(uint16_t));
    return load_half(some);
}

// R rows against one row of A: each value of A is read once for all of them.
template <bool Half, int R>
inline void shrink_rows(const float* x, const LoraPart& part, int64_t j, float* v) {
    V16 acc[R];
    for (int r = 0; r < R; r++) acc[r] = V16{};
    for (int64_t i = 0; i < part.in; i += 16) {
        const V16 a = lora_values<Half>(part.a, j * part.in + i, part.in - i);
        for (int r = 0; r < R; r++) acc[r] = fma(load_some(x + r * part.in + i, part.in - i), a, acc[r]);
    }
    for (int r = 0; r < R; r++) v[r * part.rank + j] = sum(acc[r]) * part.scale;
}

template <bool Half>
void shrink(const float* x, int64_t rows, const LoraPart& part, float* v, int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++) {
        int64_t row = 0;
        for (; row + 4 <= rows; row += 4) shrink_rows<Half, 4>(x + row * part.in, part, j, v + row * part.rank);
        for (; row + 2 <= rows; row += 2) shrink_rows<Half, 2>(x + row * part.in, part, j, v + row * part.rank);
        for (; row < rows; row++) shrink_rows<Half, 1>(x + row * part.in, part, j, v + row * part.rank);
    }
}

inline void lora_shrink(const float* x, int64_t rows, const LoraPart& part, float* v, int64_t begin, int64_t end) {
    part.half ? shrink<true>(x, rows, part, v, begin, end) : shrink<false>(x, rows, part, v, begin, end);
}

// R rows, up to sixteen outputs from o on.
template <bool Half, int R>
inline void expand_rows(const float* v, const LoraPart& part, int64_t o, int64_t count, float* y, int64_t ldy) {
    V16 acc[R];
    for (int r = 0; r < R; r++) acc[r] = V16{};
    for (int64_t j = 0; j < part.rank; j++) {
        const V16 b = lora_values<Half>(part.bt, j * part.out + o, count);
        for (int r = 0; r < R; r++) acc[r] = fma(broadcast(v[r * part.rank + j]), b, acc[r]);
    }
    for (int r = 0; r < R; r++) store_some(y + r * ldy + o, load_some(y + r * ldy + o, count) + acc[r], count);
}

template <bool Half>
void expand(const float* v, int64_t rows, const LoraPart& part, float* y, int64_t ldy, int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; o += kTile) {
        int64_t row = 0;
        for (; row + 4 <= rows; row += 4)
            expand_rows<Half, 4>(v + row * part.rank, part, o, end - o, y + row * ldy, ldy);
        for (; row + 2 <= rows; row += 2)
            expand_rows<Half, 2>(v + row * part.rank, part, o, end - o, y + row * ldy, ldy);
        for (; row < rows; row++) expand_rows<Half, 1>(v + row * part.rank, part, o, end - o, y + row * ldy, ldy);
    }
}

inline void lora_expand(const float* v, int64_t rows, const LoraPart& part, float* y, int64_t ldy, int64_t begin, int64_t end) {
    part.half ? expand<true>(v, rows, part, y, ldy, begin, end) : expand<false>(v, rows, part, y, ldy, begin, end);
}

}  // namespace intaglio::ISA
