// Keys and values as the cache holds them: loads that widen to float, and the rounding before they are stored.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/kernels.h"
#include "kernels/lane_sums.h"
#include "kernels/simd.h"

namespace intaglio::ISA {

struct Bfloat {
    uint16_t bits;  // the upper half of a float
};

template <class Stored>
constexpr bool has_scales = std::is_same_v<Stored, int8_t>;

// kLanes stored numbers as floats, without their scale.
INTAGLIO_INLINE Floats load_widened(const float* p) { return load_part(p); }

INTAGLIO_INLINE Floats load_widened(const Bfloat* p) {
#if defined(__AVX512F__)
    return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
#elif defined(__AVX2__)
    return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16);
#else
    typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
    Halves halves;
    std::memcpy(&halves, p, sizeof halves);
    return (Floats)(__builtin_convertvector(halves, Words) << 16);
#endif
}

INTAGLIO_INLINE Floats load_widened(const int8_t* p) {
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
#elif defined(__AVX2__)
    return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#else
    typedef int8_t Bytes __attribute__((vector_size(kLanes)));
    Bytes bytes;
    std::memcpy(&bytes, p, sizeof bytes);
    return __builtin_convertvector(__builtin_convertvector(bytes, Ints), Floats);
#endif
}

// The first `count` of kLanes stored numbers, zeros after them.
template <class Stored>
INTAGLIO_INLINE Floats load_some_widened(const Stored* p, int64_t count) {
    if (count >= kLanes) return load_widened(p);
    Stored lanes[kLanes] = {};
    if (count > 0) std::memcpy(lanes, p, count * sizeof(Stored));
    return load_widened(lanes);
}

// The nearest bfloat16, ties to even; a NaN stays one.
inline Bfloat to_bfloat(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (std::isnan(x)) return {(uint16_t)(bits >> 16 | 0x40)};  // quiet, so that cutting its payload leaves a NaN
    return {(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// int8 with one scale for `count` numbers. As in `quantize_rows`, numbers with an infinity or a NaN get the scale NaN.
inline void to_int8(const float* x, int32_t count, int8_t* to, float* scale) {
    constexpr float smallest = 1e-36f;  // below it 127 / x is more than a float holds
    float largest = 0;
    for (int32_t i = 0; i < count; i += 16) largest = largest_magnitude(load_some(x + i, count - i), broadcast(largest));
    if (!(largest >= smallest && std::isfinite(largest))) {
        std::fill_n(to, count, int8_t{0});
        *scale = std::isfinite(largest) ? 0.0f : NAN;
        return;
    }
    const V16 inverse = broadcast(127.0f / largest);
    for (int32_t i = 0; i < count; i += 16) {
        int8_t bytes[16];
        store_bytes(bytes, nearest(load_some(x + i, count - i) * inverse));
        std::memcpy(to + i, bytes, std::min(16, count - i));
    }
    *scale = largest / 127.0f;
}

inline void store_heads(const float* x, int64_t count, int32_t dim, KVFormat format, const CachedLayer& to, int64_t first) {
    const int64_t at = first * dim, size = count * dim;
    switch (format) {
        case KVFormat::f32: std::copy_n(x, size, (float*)to.data + at); return;
        case KVFormat::bf16: std::transform(x, x + size, (Bfloat*)to.data + at, to_bfloat); return;
        case KVFormat::int8: {
            const int32_t groups = (dim + to.group_size - 1) / to.group_size;
            for (int64_t i = 0; i < count * groups; i++) {
                const int32_t from = i % groups * to.group_size;
                const int64_t head = i / groups, place = head * dim + from;
                to_int8(x + place, std::min(to.group_size, dim - from), (int8_t*)to.data + at + place,
                        to.scales + first * groups + i);
            }
        }
    }
}

}  // namespace intaglio::ISA
