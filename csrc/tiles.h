// Products of quantized weights on matrix tiles (AMX): a group of weights becomes bfloat16 and meets up to 32 rows at once.
//
// The arithmetic, the same for every row of every batch:
//
//   weight      bf16(f16(value * 2^k)); k is chosen per output so that its largest scale lies in [2^-9, 2^-8), and smaller where
//               a minimum would be too large for f16. What is then below 2^-14, 1/64 to 1/32 of that output's largest step, is
//               zero. f16 rounds half to even, bf16 half away from zero. (k is 5 at most: where all scales are below 2^-14,
//               which real weights are not, small numbers become zeros too.)
//   activation  bf16(x * 2^n), half to even; n is chosen per row so that its largest magnitude lies in [2^64, 2^65)
//   y           float32 sums in a tile register, the groups of 32 inputs in order, one tile product per group; * 2^(-k - n)
//
// Powers of two cost no bits: rounding is that of the values themselves. They are there because a bfloat16 is made of an f16 by
// moving its bits right by three, which leaves a factor of 2^-112 behind, and because tiles take denormal numbers for zeros.
//
// Why bfloat16 and not int8: int32 sums would have to leave the tile after every group of 32 inputs, to be scaled, and that costs
// more than the product (docs/experiments.md). Here the sums stay where they are until the row is done.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "kernels.h"
#include "simd.h"
#include "unpack.h"

namespace intaglio::ISA {

constexpr int64_t kBlock = 512;  // weights of one tile of outputs and one group of inputs: a tile register of bfloat16

// ------------------------------------------------------------------------------------------------------- tile registers

// The tile intrinsics do not tell the compiler what they read: without this it drops or moves the stores to it.
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

// --------------------------------------------------------------------------------------------------- activations as bf16

// Bytes of bfloat16 rows: tiles of 16 rows, [rows / 16][groups][16][32].
inline int64_t quantized_size(int64_t rows, int64_t in) { return (rows + kTile - 1) / kTile * group_count(in) * kBlock * 2; }

// The largest magnitude of a row as its bits; an infinity or a NaN has an exponent of 255.
inline uint32_t largest_bits(const float* x, int64_t in) {
    __m512i largest = _mm512_setzero_si512();
    for (int64_t i = 0; i < in; i += 16)
        largest = _mm512_max_epu32(largest, _mm512_and_si512((__m512i)load_some(x + i, in - i).part[0],
                                                             _mm512_set1_epi32(0x7fffffff)));
    return _mm512_reduce_max_epu32(largest);
}

inline float power_of_two(int exponent) { return std::ldexp(1.0f, exponent); }

// Of each four inputs the order is 0, 2, 1, 3: that of the weights, see `dequantize`.
inline void quantize_rows(const float* x, int64_t in, const QuantizedRows& to, int64_t begin, int64_t end) {
    const int64_t groups = group_count(in);
    for (int64_t row = begin; row < end; row++) {
        const int exponent = (int)(largest_bits(x + row * in, in) >> 23) - 127;
        const bool finite = exponent < 128;
        const int n = 64 - (exponent < -63 ? -63 : exponent);
        to.scales[row] = finite ? power_of_two(64 - n) : NAN;
        const V16 factor = broadcast(finite ? power_of_two(n) : 0.0f);
        uint16_t* tile = (uint16_t*)to.values + row / kTile * groups * kBlock + row % kTile * kGroup;
        for (int64_t i = 0; i < groups * kGroup; i += 16) {
            const __m512 v = (__m512)(load_some(x + row * in + i, in - i) * factor).part[0];
            const __m256bh halves = _mm512_cvtneps_pbh(_mm512_permute_ps(v, _MM_SHUFFLE(3, 1, 2, 0)));
            std::memcpy(tile + i / kGroup * kBlock + i % kGroup, &halves, 32);
        }
    }
}

// -------------------------------------------------------------------------------------------------------- dequantization

inline __m512h twice(const uint16_t* p) {  // sixteen halves, each for both inputs that an output has in a row of the tile
    const __m512i order = _mm512_set_epi16(15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9, 8, 8, 7, 7, 6, 6, 5, 5, 4, 4, 3,
                                           3, 2, 2, 1, 1, 0, 0);
    return (__m512h)_mm512_permutexvar_epi16(order, _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i*)p)));
}

inline __m512i bfloat_of_half(__m512h h) {
    const __m512i moved = _mm512_mulhrs_epi16((__m512i)h, _mm512_set1_epi16(4096));  // (bits + 4) >> 3
    return _mm512_and_si512(moved, _mm512_set1_epi16((short)0x8fff));
}

// What a tile of outputs is scaled with. p = k + 24, because a byte is read as a half: byte * 2^-24.
struct Powers {
    __m512h up;   // p: the scales before dequantization
    __m512 back;  // 2^(72 - p): its sums at the end; 72 = 112 - 64 + 24
};

// The exponents, as f16 stores them, of the largest magnitude that each output has in any group; 1 at least.
inline __m512i largest_exponents(const uint16_t* numbers, int64_t groups) {
    __m256i largest = _mm256_set1_epi16(1 << 10);
    for (int64_t g = 0; g < groups; g++) {
        const __m256i bits = _mm256_loadu_si256((const __m256i*)(numbers + g * kTile));
        largest = _mm256_max_epi16(largest, _mm256_and_si256(bits, _mm256_set1_epi16(0x7fff)));
    }
    return _mm512_cvtepi16_epi32(_mm256_srli_epi16(largest, 10));
}

// Per output the p that moves its largest scale to [2^15, 2^16), and its largest minimum to less than 2^16.
inline Powers find_powers(const uint16_t* scales, const uint16_t* minima, int64_t groups) {
    __m512i p = _mm512_sub_epi32(_mm512_set1_epi32(30), largest_exponents(scales, groups));
    if (minima) p = _mm512_min_epi32(p, _mm512_sub_epi32(_mm512_set1_epi32(54), largest_exponents(minima, groups)));
    const __m512i back = _mm512_sub_epi32(_mm512_set1_epi32(127 + 72), p);
    return {_mm512_cvtepi16_ph(_mm512_or_si512(p, _mm512_slli_epi32(p, 16))),
            _mm512_castsi512_ps(_mm512_slli_epi32(back, 23))};
}

// The numbers of a group as bytes, a register per quad.
template <Format F>
inline void unpack(const uint8_t* from, __m512i* quads) {
    const __m512i mask = _mm512_set1_epi8(15);
    for (int i = 0; i < 8; i++) {
        if constexpr (F == Format::w8) {
            quads[i] = _mm512_loadu_si512(from + i * 64);
        } else {
            const __m512i pair = _mm512_loadu_si512(from + i % 4 * 64);
            quads[i] = _mm512_and_si512(i < 4 ? pair : _mm512_srli_epi16(pair, 4), mask);
            if constexpr (F == Format::w5) quads[i] = with_fifth(quads[i], from + 256 + i * 8);
        }
    }
}

// 512 weights to 16 rows of 16 outputs x 2 inputs. A byte with a zero byte above it is, read as a half, byte * 2^-24: nothing
// needs converting. While tiles are at work, whatever multiplies or converts has one port instead of two: here that is two
// instructions per 32 weights.
template <Format F>
inline void dequantize(const uint8_t* from, const uint16_t* scales, const uint16_t* minima, __m512h up, uint16_t* to) {
    constexpr float kCentre = F == Format::w8 ? 128 : F == Format::w5 ? 16 : 8;
    const __m512i low = _mm512_set1_epi16(0x00ff);
    const __m512i upper = _mm512_broadcast_i32x4(_mm_set_epi8(-1, 15, -1, 13, -1, 11, -1, 9, -1, 7, -1, 5, -1, 3, -1, 1));
    const __m512h scale = _mm512_scalef_ph(twice(scales), up);
    __m512h offset = _mm512_mul_ph(scale, _mm512_set1_ph((_Float16)(-kCentre * 0x1p-24f)));
    if (F != Format::w8 && minima) {
        const __m512h minimum = _mm512_scalef_ph(twice(minima), _mm512_sub_ph(up, _mm512_set1_ph((_Float16)24)));
        offset = _mm512_sub_ph(_mm512_setzero_ph(), minimum);
    }
    __m512i quads[8];
    unpack<F>(from, quads);
    for (int i = 0; i < 8; i++) {
        const __m512h even = (__m512h)_mm512_and_si512(quads[i], low);
        const __m512h odd = (__m512h)_mm512_shuffle_epi8(quads[i], upper);
        _mm512_store_si512(to + i * 64, bfloat_of_half(_mm512_fmadd_ph(even, scale, offset)));
        _mm512_store_si512(to + i * 64 + 32, bfloat_of_half(_mm512_fmadd_ph(odd, scale, offset)));
    }
}

// --------------------------------------------------------------------------------------------------------------- products

constexpr int64_t kFewRows = 32;  // go through the tile registers at once
constexpr int64_t kRing = 4;      // groups of two tiles of outputs that few rows keep
constexpr int64_t kLag = 3;       // groups between dequantization and product: the stores reach the cache meanwhile

// Memory of one thread: two times two dequantized tiles of outputs (many rows) or a ring of groups (few), and sums.
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

    // Tiles of outputs come in pairs. The second may not exist: then it is the first again.
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

    // Group g of one tile of a pair; the same place of the next pair is fetched meanwhile.
    void dequantize_group(const Pair& pair, int i, int64_t g, uint16_t* to) const {
        constexpr int64_t kBytes = group_bytes(F);
        const int64_t at = pair.tile[i] * groups + g;
        const uint8_t* from = (const uint8_t*)w.values + at * kBytes;
        for (int64_t line = 0; line < kBytes; line += 64) __builtin_prefetch(from + 2 * groups * kBytes + line, 0, 2);
        __builtin_prefetch(w.scales + (at + 2 * groups) * kTile, 0, 2);
        dequantize<F>(from, w.scales + at * kTile, w.minima ? w.minima + at * kTile : nullptr, pair.powers[i].up, to);
    }

    // The sums in the tile registers, to rows [row, row + count) of y.
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

// Few rows: a group is multiplied while later ones are dequantized.
template <Format F>
void Product<F>::few_rows(int64_t begin, int64_t end, Scratch& scratch) const {
    configure(rows);
    for (int64_t tile = begin; tile < end; tile += 2) {
        const Pair two = pair(tile, end);
        rows > 16 ? clear<true>() : clear<false>();
        for (int64_t g = 0; g < groups + kLag; g++) {
            stores_come_first(scratch.weights);  // and loads before the stores that reuse their place
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

// Many rows, [first, first + count): two tiles of outputs are dequantized while all rows meet the two before them.
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
            // The first rows take one tile of the next pair along, the second the other; the last of all take what is left.
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
        // In equal pieces of rows that stay in the second-level cache while the weights go by.
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
