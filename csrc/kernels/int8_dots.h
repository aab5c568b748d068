// Dot products of int8 activations with the numbers of a quantized matrix: one tile of 16 outputs, one group of 32 inputs. The sums
// are int32 and exact, so they are the same on every machine.
#pragma once

#include <cstring>

#include "kernels/fifth_bits.h"
#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace intaglio::ISA {
namespace {

#if defined(INTAGLIO_AVX2)
// Four activations, for every output of a register.
INTAGLIO_INLINE __m256i four_inputs(const int8_t* x) {
    int32_t four;
    std::memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}

// Keeps the compiler from gathering all products before it adds them up, since they would not fit into the registers.
INTAGLIO_INLINE void keep_order(__m256i& sum) { asm("" : "+x"(sum)); }

// maddubs leaves the sums of two products in 16 bits; those of so many quads can be added there before they are widened: eight of
// w4 are at most 8 * 2 * 15 * 127 = 30480, four of w5 at most 4 * 2 * 31 * 127 = 31496.
constexpr int quads_that_fit(bool five) { return five ? 4 : 8; }

struct TwoQuads {
    __m256i low, high;
};

// Half of the outputs' numbers of quads `pair` and `pair + 4` of a group of w4 or w5, one to a byte.
template <bool Five>
INTAGLIO_INLINE TwoQuads take_apart(const uint8_t* w, int pair, int half) {
    const __m256i mask = _mm256_set1_epi8(15);
    const __m256i bytes = _mm256_loadu_si256((const __m256i*)(w + pair * 64 + half * 32));
    const __m256i low = _mm256_and_si256(bytes, mask), high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
    if constexpr (!Five) return {low, high};
    const uint8_t* bits = w + 256 + pair * 8 + half * 4;
    return {with_fifth(low, bits), with_fifth(high, bits + 32)};
}
#endif

// d[r] = sum over the group of w * x[r], per output of the tile. w8: bytes are value + 128.
template <int R>
inline void dot_w8(const uint8_t* w, const int8_t* const* x, const int32_t* sums, I16* d) {
#if defined(__AVX512VNNI__)
    for (int r = 0; r < R; r++) d[r].part[0] = (Ints)_mm512_set1_epi32(-128 * sums[r]);
    for (int quad = 0; quad < 8; quad++) {
        const __m512i bytes = _mm512_loadu_si512(w + quad * 64);
        for (int r = 0; r < R; r++) {
            int32_t four;
            std::memcpy(&four, x[r] + quad * 4, 4);
            d[r].part[0] = (Ints)_mm512_dpbusd_epi32((__m512i)d[r].part[0], bytes, _mm512_set1_epi32(four));
        }
    }
#elif defined(__AVX2__)
    const __m256i ones = _mm256_set1_epi16(1), flip = _mm256_set1_epi8((char)0x80);
    __m256i acc[R][2];
    for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
    for (int quad = 0; quad < 8; quad++)
        for (int half = 0; half < 2; half++) {
            const __m256i bytes = _mm256_loadu_si256((const __m256i*)(w + quad * 64 + half * 32));
            const __m256i value = _mm256_xor_si256(bytes, flip);  // signed again
            const __m256i magnitude = _mm256_abs_epi8(value);
            for (int r = 0; r < R; r++) {
                // |w| * (x with w's sign): pairs stay below 2 * 128 * 127 = 32512, so nothing saturates.
                const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(four_inputs(x[r] + quad * 4), value));
                acc[r][half] = _mm256_add_epi32(acc[r][half], _mm256_madd_epi16(pairs, ones));
                keep_order(acc[r][half]);
            }
        }
    for (int r = 0; r < R; r++)
        for (int part = 0; part < kParts; part++) d[r].part[part] = (Ints)acc[r][part];
    (void)sums;
#elif defined(__ARM_FEATURE_DOTPROD)
    const uint8x16_t flip = vdupq_n_u8(0x80);
    int32x4_t acc[R][4];
    for (int r = 0; r < R; r++)
        for (int part = 0; part < 4; part++) acc[r][part] = vdupq_n_s32(0);
    for (int quad = 0; quad < 8; quad++)
        for (int part = 0; part < 4; part++) {
            const int8x16_t value = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(w + quad * 64 + part * 16), flip));
            for (int r = 0; r < R; r++) {
                int32_t four;
                std::memcpy(&four, x[r] + quad * 4, 4);
                acc[r][part] = vdotq_s32(acc[r][part], value, vreinterpretq_s8_s32(vdupq_n_s32(four)));
            }
        }
    for (int r = 0; r < R; r++)
        for (int part = 0; part < kParts; part++) d[r].part[part] = (Ints)acc[r][part];
    (void)sums;
#else
    for (int r = 0; r < R; r++) {
        int32_t lanes[16] = {};
        for (int quad = 0; quad < 8; quad++)
            for (int o = 0; o < 16; o++)
                for (int i = 0; i < 4; i++) lanes[o] += ((int32_t)w[quad * 64 + o * 4 + i] - 128) * x[r][quad * 4 + i];
        std::memcpy(&d[r], lanes, 64);
    }
    (void)sums;
#endif
}

// The same for w4 and, with Five, for w5: the numbers are unsigned, and the caller subtracts the centre or the minimum.
template <int R, bool Five>
inline void dot_small(const uint8_t* w, const int8_t* const* x, I16* d) {
    [[maybe_unused]] const uint8_t* bits = w + 256;  // 8 bytes per quad
#if defined(__AVX512VNNI__)
    const __m512i mask = _mm512_set1_epi8(15);
    for (int r = 0; r < R; r++) d[r] = I16{};
    for (int pair = 0; pair < 4; pair++) {
        const __m512i bytes = _mm512_loadu_si512(w + pair * 64);
        __m512i low = _mm512_and_si512(bytes, mask);
        __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask);
        if constexpr (Five) low = with_fifth(low, bits + pair * 8), high = with_fifth(high, bits + 32 + pair * 8);
        for (int r = 0; r < R; r++) {
            int32_t first, second;
            std::memcpy(&first, x[r] + pair * 4, 4);
            std::memcpy(&second, x[r] + 16 + pair * 4, 4);
            __m512i acc = _mm512_dpbusd_epi32((__m512i)d[r].part[0], low, _mm512_set1_epi32(first));
            d[r].part[0] = (Ints)_mm512_dpbusd_epi32(acc, high, _mm512_set1_epi32(second));
        }
    }
#elif defined(__AVX2__)
    const __m256i ones = _mm256_set1_epi16(1);
    // For one or two rows of w5 taking the numbers apart decides, and one pass over the group is faster than two.
    constexpr bool kJoin = !Five || R > 2;
    constexpr int kPairs = kJoin ? quads_that_fit(Five) / 2 : 4;
    __m256i acc[R][2];
    for (int first = 0; first < 4; first += kPairs) {
        __m256i joined[R][2];
        for (int r = 0; r < R; r++) joined[r][0] = joined[r][1] = _mm256_setzero_si256();
        for (int pair = first; pair < first + kPairs; pair++)
            for (int half = 0; half < 2; half++) {
                const auto [low, high] = take_apart<Five>(w, pair, half);
                for (int r = 0; r < R; r++) {
                    const __m256i a = _mm256_maddubs_epi16(low, four_inputs(x[r] + pair * 4));
                    const __m256i b = _mm256_maddubs_epi16(high, four_inputs(x[r] + 16 + pair * 4));
                    if constexpr (kJoin) {
                        joined[r][half] = _mm256_add_epi16(joined[r][half], _mm256_add_epi16(a, b));
                        keep_order(joined[r][half]);
                    } else {
                        joined[r][half] = _mm256_add_epi32(joined[r][half], _mm256_madd_epi16(_mm256_add_epi16(a, b), ones));
                    }
                }
            }
        for (int r = 0; r < R; r++)
            for (int half = 0; half < 2; half++) {
                const __m256i sum = kJoin ? _mm256_madd_epi16(joined[r][half], ones) : joined[r][half];
                acc[r][half] = first ? _mm256_add_epi32(acc[r][half], sum) : sum;
            }
    }
    for (int r = 0; r < R; r++)
        for (int part = 0; part < kParts; part++) d[r].part[part] = (Ints)acc[r][part];
#elif defined(__ARM_FEATURE_DOTPROD)
    const uint8x16_t mask = vdupq_n_u8(15);
    int32x4_t acc[R][4];
    for (int r = 0; r < R; r++)
        for (int part = 0; part < 4; part++) acc[r][part] = vdupq_n_s32(0);
    for (int pair = 0; pair < 4; pair++)
        for (int part = 0; part < 4; part++) {
            const uint8x16_t bytes = vld1q_u8(w + pair * 64 + part * 16);
            uint8x16_t low = vandq_u8(bytes, mask), high = vshrq_n_u8(bytes, 4);
            if constexpr (Five) {
                low = with_fifth(low, bits + pair * 8 + part * 2);
                high = with_fifth(high, bits + 32 + pair * 8 + part * 2);
            }
            for (int r = 0; r < R; r++) {
                int32_t first, second;
                std::memcpy(&first, x[r] + pair * 4, 4);
                std::memcpy(&second, x[r] + 16 + pair * 4, 4);
                acc[r][part] = vdotq_s32(acc[r][part], vreinterpretq_s8_u8(low), vreinterpretq_s8_s32(vdupq_n_s32(first)));
                acc[r][part] = vdotq_s32(acc[r][part], vreinterpretq_s8_u8(high), vreinterpretq_s8_s32(vdupq_n_s32(second)));
            }
        }
    for (int r = 0; r < R; r++)
        for (int part = 0; part < kParts; part++) d[r].part[part] = (Ints)acc[r][part];
#else
    for (int r = 0; r < R; r++) {
        int32_t lanes[16] = {};
        for (int pair = 0; pair < 4; pair++)
            for (int at = 0; at < 64; at++) {
                int32_t low = w[pair * 64 + at] & 15, high = w[pair * 64 + at] >> 4;
                if constexpr (Five) {
                    low |= (bits[pair * 8 + at / 8] >> at % 8 & 1) << 4;
                    high |= (bits[32 + pair * 8 + at / 8] >> at % 8 & 1) << 4;
                }
                lanes[at / 4] += low * x[r][pair * 4 + at % 4] + high * x[r][16 + pair * 4 + at % 4];
            }
        std::memcpy(&d[r], lanes, 64);
    }
#endif
}

#if defined(INTAGLIO_AVX2)
// The numbers of a group of w4 or w5, one to a byte in the order of w8. Taken apart once they serve many rows.
template <bool Five>
inline void unpack_small(const uint8_t* w, uint8_t* to) {
    for (int pair = 0; pair < 4; pair++)
        for (int half = 0; half < 2; half++) {
            const auto [low, high] = take_apart<Five>(w, pair, half);
            _mm256_storeu_si256((__m256i*)(to + pair * 64 + half * 32), low);
            _mm256_storeu_si256((__m256i*)(to + (pair + 4) * 64 + half * 32), high);
        }
}

// dot_small of numbers that are unpacked.
template <int R, bool Five>
inline void dot_unpacked(const uint8_t* w, const int8_t* const* x, I16* d) {
    const __m256i ones = _mm256_set1_epi16(1);
    for (int first = 0; first < 8; first += quads_that_fit(Five)) {
        __m256i joined[R][2];
        for (int r = 0; r < R; r++) joined[r][0] = joined[r][1] = _mm256_setzero_si256();
        for (int quad = first; quad < first + quads_that_fit(Five); quad++)
            for (int r = 0; r < R; r++) {
                const __m256i four = four_inputs(x[r] + quad * 4);
                for (int half = 0; half < 2; half++) {
                    const __m256i bytes = _mm256_load_si256((const __m256i*)(w + quad * 64 + half * 32));
                    joined[r][half] = _mm256_add_epi16(joined[r][half], _mm256_maddubs_epi16(bytes, four));
                    keep_order(joined[r][half]);
                }
            }
        for (int r = 0; r < R; r++)
            for (int half = 0; half < 2; half++) {
                const Ints sum = (Ints)_mm256_madd_epi16(joined[r][half], ones);
                d[r].part[half] = first ? d[r].part[half] + sum : sum;
            }
    }
}
#endif

}  // namespace
}  // namespace intaglio::ISA
