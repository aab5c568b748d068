// LoRA for a run of rows with one adapter: x . At down to the rank (shrink), v . Bt up again (expand).
//
// If every row has an adapter of its own, each number of its matrices is used once. So they are laid out to be read from front to
// back (see LoraPair), and several sums are computed at once, because a single one waits for its own last addition. Which sums are
// computed together changes none of them: each runs over the same lanes in the same order.
#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace intaglio::ISA {

// Sixteen values of an adapter's matrix.
template <int Size>
INTAGLIO_INLINE V16 lora_values(const void* values, int64_t at) {
    if constexpr (Size == 1)
        return load_bytes((const int8_t*)values + at);
    else if constexpr (Size == 2)
        return load_half((const uint16_t*)values + at);
    else
        return load((const float*)values + at);
}

// v[r, j] for R rows of x and the `Ranks` rows of A that begin at `at`; v points to the first of these ranks.
template <int Size, int Ranks, int R>
inline void shrink_block(const float* x, const LoraPair& pair, int64_t at, const float* scales, float* v) {
    V16 acc[R][Ranks];
    for (int r = 0; r < R; r++)
        for (int j = 0; j < Ranks; j++) acc[r][j] = V16{};
    const auto add = [&](int64_t i, auto inputs) __attribute__((always_inline)) {
        V16 a[Ranks];
        for (int j = 0; j < Ranks; j++) a[j] = lora_values<Size>(pair.a, at + i * Ranks + j * 16);
        for (int r = 0; r < R; r++) {
            const V16 some = inputs(x + r * pair.in + i);
            for (int j = 0; j < Ranks; j++) acc[r][j] = fma(some, a[j], acc[r][j]);
        }
    };
    int64_t i = 0;
    for (; i + 16 <= pair.in; i += 16) add(i, [](const float* p) { return load(p); });
    if (i < pair.in) add(i, [&](const float* p) { return load_some(p, pair.in - i); });
    for (int r = 0; r < R; r++)
        for (int j = 0; j < Ranks; j++) v[r * pair.rank + j] = sum(acc[r][j]) * scales[j];
}

template <int Size, int Ranks>
void shrink_rows(const float* x, int64_t rows, const LoraPair& pair, int64_t first, float* v) {
    const int64_t at = first * lora_width(pair.in);
    const float* scales = pair.scales + first;
    int64_t row = 0;
    for (; row + 4 <= rows; row += 4)
        shrink_block<Size, Ranks, 4>(x + row * pair.in, pair, at, scales, v + row * pair.rank + first);
    for (; row + 2 <= rows; row += 2)
        shrink_block<Size, Ranks, 2>(x + row * pair.in, pair, at, scales, v + row * pair.rank + first);
    for (; row < rows; row++) shrink_block<Size, Ranks, 1>(x + row * pair.in, pair, at, scales, v + row * pair.rank + first);
}

template <int Size>
void shrink(const float* x, int64_t rows, const LoraPair& pair, float* v, int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; block++) {
        const int64_t first = block * kRanks;
        switch (pair.rank - first) {
            case 1: shrink_rows<Size, 1>(x, rows, pair, first, v); break;
            case 2: shrink_rows<Size, 2>(x, rows, pair, first, v); break;
            case 3: shrink_rows<Size, 3>(x, rows, pair, first, v); break;
            default: shrink_rows<Size, kRanks>(x, rows, pair, first, v);
        }
    }
}

inline void lora_shrink(const float* x, int64_t rows, const LoraPair& pair, float* v, int64_t begin, int64_t end) {
    switch (pair.size) {
        case 1: return shrink<1>(x, rows, pair, v, begin, end);
        case 2: return shrink<2>(x, rows, pair, v, begin, end);
        default: return shrink<4>(x, rows, pair, v, begin, end);
    }
}

template <int Size>
void lookup(const LoraPair& pair, const int32_t* ids, int64_t rows, float factor, float* v) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t j = 0; j < pair.rank; j++) {
            const int64_t block = j / kRanks * kRanks, ranks = pair.rank - block < kRanks ? pair.rank - block : kRanks;
            const int64_t at = block * lora_width(pair.in) + ids[row] / 16 * ranks * 16 + (j - block) * 16;
            float lanes[16];
            store(lanes, lora_values<Size>(pair.a, at));
            v[row * pair.rank + j] = lanes[ids[row] % 16] * pair.scales[j] * factor;
        }
}

inline void lora_lookup(const LoraPair& pair, const int32_t* ids, int64_t rows, float factor, float* v) {
    switch (pair.size) {
        case 1: return lookup<1>(pair, ids, rows, factor, v);
        case 2: return lookup<2>(pair, ids, rows, factor, v);
        default: return lookup<4>(pair, ids, rows, factor, v);
    }
}

// Adds v . Bt to `count` outputs from o on, in `Tiles` tiles of sixteen, for R rows.
template <int Size, int Tiles, int R>
inline void expand_block(const float* v, const LoraPair& pair, int64_t o, int64_t count, float* y, int64_t ldy) {
    V16 acc[R][Tiles];
    for (int r = 0; r < R; r++)
        for (int t = 0; t < Tiles; t++) acc[r][t] = V16{};
    for (int64_t j = 0; j < pair.rank; j++) {
        V16 b[Tiles];
        for (int t = 0; t < Tiles; t++) b[t] = lora_values<Size>(pair.bt, (o + 16 * t) * pair.rank + 16 * j);
        for (int r = 0; r < R; r++) {
            const V16 value = broadcast(v[r * pair.rank + j]);
            for (int t = 0; t < Tiles; t++) acc[r][t] = fma(value, b[t], acc[r][t]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < Tiles; t++) {
            float* to = y + r * ldy + o + 16 * t;
            store_some(to, load_some(to, count - 16 * t) + acc[r][t], count - 16 * t);
        }
}

template <int Size, int Tiles>
void expand_rows(const float* v, int64_t rows, const LoraPair& pair, int64_t o, int64_t count, float* y, int64_t ldy) {
    int64_t row = 0;
    for (; row + 4 <= rows; row += 4) expand_block<Size, Tiles, 4>(v + row * pair.rank, pair, o, count, y + row * ldy, ldy);
    for (; row + 2 <= rows; row += 2) expand_block<Size, Tiles, 2>(v + row * pair.rank, pair, o, count, y + row * ldy, ldy);
    for (; row < rows; row++) expand_block<Size, Tiles, 1>(v + row * pair.rank, pair, o, count, y + row * ldy, ldy);
}

template <int Size>
void expand(const float* v, int64_t rows, const LoraPair& pair, float* y, int64_t ldy, int64_t begin, int64_t end) {
    constexpr int kTiles = 2;
    int64_t o = begin;
    for (; o + kTiles * kTile <= end; o += kTiles * kTile) expand_rows<Size, kTiles>(v, rows, pair, o, kTiles * kTile, y, ldy);
    for (; o < end; o += kTile) expand_rows<Size, 1>(v, rows, pair, o, end - o, y, ldy);
}

inline void lora_expand(const float* v, int64_t rows, const LoraPair& pair, float* y, int64_t ldy, int64_t begin, int64_t end) {
    switch (pair.size) {
        case 1: return expand<1>(v, rows, pair, y, ldy, begin, end);
        case 2: return expand<2>(v, rows, pair, y, ldy, begin, end);
        default: return expand<4>(v, rows, pair, y, ldy, begin, end);
    }
}

}  // namespace intaglio::ISA
