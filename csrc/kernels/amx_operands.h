// Activations and weights as bfloat16 for matrix tiles; amx_matmul.h describes the arithmetic.
#pragma once

#include <cmath>
#include <cstring>

#include "kernels/fifth_bits.h"
#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace intaglio::ISA {

constexpr int64_t kBlock = 512;  // weights of one tile of outputs and one group of inputs, which fill a tile register

// ---------------------------------------------------------------------------------------------------------------- activations

// Bytes of bfloat16 rows: tiles of 16 rows, [rows / 16][groups][16][32].
inline int64_t quantized_size(int64_t rows, int64_t in) { return (rows + kTile - 1) / kTile * group_count(in) * kBlock * 2; }

// The bits of a row's largest magnitude; an infinity or a NaN has an exponent of 255.
inline uint32_t largest_bits(const float* x, int64_t in) {
    __m512i largest = _mm512_setzero_si512();
    for (int64_t i = 0; i < in; i += 16)
        largest = _mm512_max_epu32(largest,
                                   _mm512_and_si512((__m512i)load_some(x + i, in - i).part[0], _mm512_set1_epi32(0x7fffffff)));
    return _mm512_reduce_max_epu32(largest);
}

inline float power_of_two(int exponent) { return std::ldexp(1.0f, exponent); }

// Each four inputs are stored in the order 0, 2, 1, 3, as `dequantize` stores the weights.
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

// ------------------------------------------------------------------------------------------------------------- dequantization

inline __m512h twice(const uint16_t* p) {  // sixteen halves, each twice: a row of the tile has two inputs of every output
    const __m512i order = _mm512_set_epi16(15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9, 8, 8, 7, 7, 6, 6, 5, 5, 4, 4,
                                           3, 3, 2, 2, 1, 1, 0, 0);
    return (__m512h)_mm512_permutexvar_epi16(order, _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i*)p)));
}

inline __m512i bfloat_of_half(__m512h h) {
    const __m512i moved = _mm512_mulhrs_epi16((__m512i)h, _mm512_set1_epi16(4096));  // (bits + 4) >> 3
    return _mm512_and_si512(moved, _mm512_set1_epi16((short)0x8fff));
}

// The scaling of a tile of outputs. p = k + 24, because a byte is read as a half: byte * 2^-24.
struct Powers {
    __m512h up;   // p: scales are multiplied with 2^p before dequantization
    __m512 back;  // 2^(72 - p), the factor on the sums at the end; 72 = 112 - 64 + 24
};

// For each output the exponent, as f16 stores it, of the largest magnitude in any group; 1 at least.
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
    return {_mm512_cvtepi16_ph(_mm512_or_si512(p, _mm512_slli_epi32(p, 16))), _mm512_castsi512_ps(_mm512_slli_epi32(back, 23))};
}

// Unpacks the numbers of a group into bytes, a register per quad.
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

// Dequantizes 512 weights to 16 rows of 16 outputs x 2 inputs. A byte with a zero byte above it, read as a half, is byte * 2^-24, so
// no instruction converts it. While tiles multiply, instructions that multiply or convert have one port instead of two; here there
// are two of them per 32 weights.
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

}  // namespace intaglio::ISA
