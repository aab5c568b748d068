// Products of quantized weights on matrix tiles (AMX): a group of weights becomes bfloat16 and is multiplied with up to 32 rows.
//
// The arithmetic, the same for every row of every batch:
//
//   weight      bf16(f16(value * 2^k)); k is chosen per output so that its largest scale lies in [2^-9, 2^-8), and smaller where
//               a minimum would be too large for f16. Values that are then below 2^-14, 1/64 to 1/32 of that output's largest
//               step, become zero. f16 rounds half to even, bf16 half away from zero. (k is 5 at most: if all scales were below
//               2^-14, as no real weights have them, small numbers would become zeros too.)
//   activation  bf16(x * 2^n), half to even; n is chosen per row so that its largest magnitude lies in [2^64, 2^65)
//   y           float32 sums in a tile register, the groups of 32 inputs in order, one tile product per group; * 2^(-k - n)
//
// Scaling by powers of two loses no bits. It is needed because an f16 becomes a bfloat16 by moving its bits right by three, which
// leaves a factor of 2^-112 behind, and because tiles treat denormal numbers as zeros.
//
// Why bfloat16 and not int8: int32 sums would have to leave the tile after every group of 32 inputs, to be scaled, and that costs
// more than the product (docs/experiments.md). Float32 sums stay in the tile until the row is done.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "kernels/amx_operands.h"
#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace intaglio::ISA {

// ------------------------------------------------------------------------------------------------------- tile registers

// The tile intrinsics do not tell the compiler what they read: without this it drops or moves stores to that memory.
inline void stores_come_first(const void* read) { asm volatile("" ::"r"(read) : "memory"); }

// tmm0 ... 3: sums of (rows 0, outputs 0), (rows 0, outputs 1), (rows 1, outputs 0), (rows 1, outputs 1); tmm4, 5: rows; tmm6, 7:
// weights. Registers with fewer rows are faster.
inline void configure(int64_t rows) {
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
    } config;
    const int first = rows < 16 ? (int)rows : 16, second = rows <= 16 ? 0 : rows < 32 ? (int)rows - 16 : 16;
    const int counts[8] = {first, first, second, second, first, second, 16, 16};
    for (int i = 0; i < 8; i++) {
        config.rows[i] = (uint8_t)counts[i];
        config.bytes[i] = counts[i] ? 64 : 0;
    }
    stores_come_first(&config);
    _tile_loadconfig(&config);
}

// --------------------------------------------------------------------------------------------------------------- products

constexpr int64_t kFewRows = 32;  // as many as the tile registers hold at once
constexpr int64_t kRing = 4;      // dequantized groups of two tiles of outputs that are kept for few rows
constexpr int64_t kLag = 3;       // groups between dequantization and product: the stores reach the cache meanwhile

// Memory of one thread: two pairs of dequantized tiles of outputs (many rows) or a ring of groups (few rows), and sums.
struct Scratch {
    explicit Scratch(int64_t groups)
        : memory((std::max<int64_t>(groups, kRing) * 4 + 4) * kBlock * 2 + 64, 0),
          weights((uint16_t*)(memory.data() + -(uintptr_t)memory.data() % 64)),
          sums((float*)(weights + std::max<int64_t>(groups, kRing) * 4 * kBlock)) {}

    std::vector<uint8_t> memory;
    uint16_t* weights;
    float* sums;  // [2 tiles of outputs][32 rows][16]
};

// One product: its operands, and the steps of it that do not depend on how many rows there are.
template <Format F>
struct Product {
    const Matrix& w;
    const QuantizedRows& q;
    int64_t rows;
    float* y;
    int64_t ldy;
    int64_t groups = group_count(w.in);
    const uint16_t* x = (const uint16_t*)q.values;

    // Tiles of outputs are computed in pairs. If there is no second tile, the pair has the first one twice.
    struct Pair {
        int64_t tile[2];
        bool has_second;
        Powers powers[2];
    };

    Pair pair(int64_t tile, int64_t end) const {
        Pair p{{tile, tile + 1 < end ? tile + 1 : tile}, tile + 1 < end, {}};
        for (int i = 0; i < 2; i++) {
            const int64_t at = p.tile[i] * groups * kTile;
            p.powers[i] = find_powers(w.scales + at, w.minima ? w.minima + at : nullptr, groups);
        }
        return p;
    }

    // Dequantizes group g of one tile of a pair, and prefetches the same group of the next pair.
    void dequantize_group(const Pair& pair, int i, int64_t g, uint16_t* to) const {
        constexpr int64_t kBytes = group_bytes(F);
        const int64_t at = pair.tile[i] * groups + g;
        const uint8_t* from = (const uint8_t*)w.values + at * kBytes;
        for (int64_t line = 0; line < kBytes; line += 64) __builtin_prefetch(from + 2 * groups * kBytes + line, 0, 2);
        __builtin_prefetch(w.scales + (at + 2 * groups) * kTile, 0, 2);
        dequantize<F>(from, w.scales + at * kTile, w.minima ? w.minima + at * kTile : nullptr, pair.powers[i].up, to);
    }

    // Stores the sums in the tile registers to rows [row, row + count) of y.
    void store_sums(const Pair& pair, int64_t row, int64_t count, float* sums) const {
        _tile_stored(0, sums, 64);
        _tile_stored(1, sums + 512, 64);
        if (count > 16) {
            _tile_stored(2, sums + 256, 64);
            _tile_stored(3, sums + 768, 64);
        }
        stores_come_first(sums);
        for (int i = 0; i < (pair.has_second ? 2 : 1); i++)
            for (int64_t r = 0; r < count; r++) {
                const V16 sum{{(Floats)_mm512_mul_ps(_mm512_load_ps(sums + i * 512 + r * kTile), pair.powers[i].back)}};
                store_some(y + (row + r) * ldy + pair.tile[i] * kTile, sum * broadcast(q.scales[row + r]),
                           w.out - pair.tile[i] * kTile);
            }
    }

    void few_rows(int64_t begin, int64_t end, Scratch& scratch) const;
    void many_rows(int64_t first, int64_t count, int64_t begin, int64_t end, Scratch& scratch) const;
};

template <bool TwoTiles>
INTAGLIO_INLINE void clear() {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (TwoTiles) {
        _tile_zero(2);
        _tile_zero(3);
    }
}

// One group: one or two tiles of rows, `next` halves apart, times two tiles of outputs.
template <bool TwoTiles>
INTAGLIO_INLINE void multiply(const uint16_t* x, int64_t next, const uint16_t* weights) {
    _tile_loadd(4, x, 64);
    _tile_loadd(6, weights, 64);
    _tile_loadd(7, weights + kBlock, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (TwoTiles) {
        _tile_loadd(5, x + next, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

// For few rows: a group is multiplied while later ones are dequantized.
template <Format F>
void Product<F>::few_rows(int64_t begin, int64_t end, Scratch& scratch) const {
    configure(rows);
    for (int64_t tile = begin; tile < end; tile += 2) {
        const Pair two = pair(tile, end);
        rows > 16 ? clear<true>() : clear<false>();
        for (int64_t g = 0; g < groups + kLag; g++) {
            stores_come_first(scratch.weights);  // also keeps loads before the stores that reuse their memory
            if (g < groups)
                for (int i = 0; i < 2; i++) dequantize_group(two, i, g, scratch.weights + (g % kRing * 2 + i) * kBlock);
            stores_come_first(scratch.weights);
            const int64_t ready = g - kLag;
            if (ready < 0) continue;
            const uint16_t* weights = scratch.weights + ready % kRing * 2 * kBlock;
            if (rows > 16)
                multiply<true>(x + ready * kBlock, groups * kBlock, weights);
            else
                multiply<false>(x + ready * kBlock, groups * kBlock, weights);
        }
        store_sums(two, 0, rows, scratch.sums);
    }
}

// For many rows, [first, first + count): a pair of tiles is dequantized while all rows are multiplied with the pair before.
template <Format F>
void Product<F>::many_rows(int64_t first, int64_t count, int64_t begin, int64_t end, Scratch& scratch) const {
    uint16_t *ready = scratch.weights, *coming = scratch.weights + 2 * groups * kBlock;
    Pair now = pair(begin, end);
    for (int64_t g = 0; g < groups; g++)
        for (int i = 0; i < 2; i++) dequantize_group(now, i, g, ready + (2 * g + i) * kBlock);
    configure(32);
    for (int64_t tile = begin; tile < end; tile += 2) {
        const bool more = tile + 2 < end;
        const Pair next = more ? pair(tile + 2, end) : now;
        stores_come_first(ready);
        for (int64_t row = 0; row < count; row += 32) {
            const int64_t left = std::min<int64_t>(count - row, 32);
            // The first 32 rows dequantize one tile of the next pair meanwhile, the second 32 rows the other; the last rows do
            // what is left.
            const int from = row == 0 ? 0 : row == 32 ? 1 : 2, to = !more ? from : row == 0 && count > 32 ? 1 : 2;
            const uint16_t* rows_at = x + (first + row) / kTile * groups * kBlock;
            if (left < 32) configure(left);
            left > 16 ? clear<true>() : clear<false>();
            for (int64_t g = 0; g < groups; g++) {
                for (int i = from; i < to; i++) dequantize_group(next, i, g, coming + (2 * g + i) * kBlock);
                if (left > 16)
                    multiply<true>(rows_at + g * kBlock, groups * kBlock, ready + 2 * g * kBlock);
                else
                    multiply<false>(rows_at + g * kBlock, groups * kBlock, ready + 2 * g * kBlock);
            }
            store_sums(now, first + row, left, scratch.sums);
            if (left < 32) configure(32);
        }
        now = next;
        std::swap(ready, coming);
    }
}

template <Format F>
void product_of_format(const Product<F>& product, int64_t begin, int64_t end) {
    thread_local std::unique_ptr<Scratch> scratch;
    thread_local int64_t largest = 0;
    if (product.groups > largest) scratch = std::make_unique<Scratch>(product.groups), largest = product.groups;
    if (product.rows <= kFewRows) {
        product.few_rows(begin, end, *scratch);
    } else {
        // In equal pieces of rows that stay in the second-level cache while all weights are multiplied with them.
        const int64_t fit = std::max<int64_t>(2, 768 / product.groups), tiles = (product.rows + kTile - 1) / kTile;
        const int64_t pieces = (tiles + fit - 1) / fit, step = ((tiles + pieces - 1) / pieces + 1) / 2 * 32;
        for (int64_t row = 0; row < product.rows; row += step)
            product.many_rows(row, std::min(step, product.rows - row), begin, end, *scratch);
    }
    _tile_release();
}

// y[rows, out] = x . Wt for tiles of outputs [begin, end).
inline void product_on_tiles(const Matrix& w, const QuantizedRows& q, int64_t rows, float* y, int64_t ldy, int64_t begin,
                             int64_t end) {
    if (begin >= end || rows == 0) return;  // a register without rows cannot be configured
    switch (w.format) {
        case Format::w8: return product_of_format<Format::w8>({w, q, rows, y, ldy}, begin, end);
        case Format::w5: return product_of_format<Format::w5>({w, q, rows, y, ldy}, begin, end);
        case Format::w4: return product_of_format<Format::w4>({w, q, rows, y, ldy}, begin, end);
        default: return;
    }
}

}  // namespace intaglio::ISA
