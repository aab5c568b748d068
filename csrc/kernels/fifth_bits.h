// Puts the numbers of w5 together: their four low bits and their fifth bits are stored separately.
#pragma once

#include "kernels/simd.h"

namespace intaglio::ISA {

// Adds the fifth bits to a register of bytes: sixteen where the byte's bit is set.
#if defined(__AVX512VNNI__)
INTAGLIO_INLINE __m512i with_fifth(__m512i bytes, const uint8_t* bits) {
    uint64_t mask;
    std::memcpy(&mask, bits, 8);
    return _mm512_mask_add_epi8(bytes, mask, bytes, _mm512_set1_epi8(16));
}
#elif defined(__AVX2__)
INTAGLIO_INLINE __m256i with_fifth(__m256i bytes, const uint8_t* bits) {
    int32_t mask;
    std::memcpy(&mask, bits, 4);
    const __m256i eighth = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x(0x8040201008040201);  // each byte's own bit
    const __m256i own = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(mask), eighth), bit);
    return _mm256_or_si256(bytes, _mm256_and_si256(_mm256_cmpeq_epi8(own, bit), _mm256_set1_epi8(16)));
}
#elif defined(__ARM_FEATURE_DOTPROD)
INTAGLIO_INLINE uint8x16_t with_fifth(uint8x16_t bytes, const uint8_t* bits) {
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
    const uint8x16_t set = vtstq_u8(vcombine_u8(vdup_n_u8(bits[0]), vdup_n_u8(bits[1])), bit);
    return vorrq_u8(bytes, vandq_u8(set, vdupq_n_u8(16)));
}
#endif

}  // namespace intaglio::ISA
