// Sixteen floats at a time, on any machine.
//
// A V16 is one AVX-512 register, two of AVX2, or four of NEON or SSE: an array of the compiler's portable vectors (GCC and
// Clang) of the machine's own width, because compilers make poor code of vectors that are wider. Sums always run over the same
// sixteen lanes and are folded in the same order, so a result does not depend on how wide the machine is; only whether a
// multiply and an add round once (FMA) or twice does. That is said by calling `fma`, never left to the compiler, which might
// choose differently for one row and for eight: the kernels are compiled with -ffp-contract=off.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INTAGLIO_INLINE inline __attribute__((always_inline))

namespace intaglio::ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
#define INTAGLIO_AVX2  // and nothing wider
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr int kParts = 16 / kLanes;

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));

struct V16 {
    Floats part[kParts];
};

struct I16 {
    Ints part[kParts];
};

// The vector whose part i is f(i).
template <class Function>
INTAGLIO_INLINE V16 by_parts(Function f) {
    V16 v;
    for (int i = 0; i < kParts; i++) v.part[i] = f(i);
    return v;
}

// Part by part: a copy of the whole goes through memory in smaller pieces, which stalls the loads after it.
INTAGLIO_INLINE V16 load(const float* p) {
    return by_parts([=](int i) {
        Floats part;
        std::memcpy(&part, p + i * kLanes, sizeof part);
        return part;
    });
}

// Up to sixteen floats, zeros after them.
INTAGLIO_INLINE V16 load_some(const float* p, int64_t count) {
    if (count >= 16) return load(p);
    float lanes[16] = {};
    if (count > 0) std::memcpy(lanes, p, count * sizeof(float));
    return load(lanes);
}

INTAGLIO_INLINE void store(float* p, V16 v) {
    for (int i = 0; i < kParts; i++) std::memcpy(p + i * kLanes, &v.part[i], sizeof v.part[i]);
}

INTAGLIO_INLINE void store_some(float* y, V16 v, int64_t count) {
    if (count >= 16) {
        store(y, v);
        return;
    }
    float lanes[16];
    store(lanes, v);
    std::memcpy(y, lanes, count * sizeof(float));
}

INTAGLIO_INLINE Floats every(float x) { return x - Floats{}; }

INTAGLIO_INLINE V16 broadcast(float x) {
    return by_parts([=](int) { return every(x); });
}

INTAGLIO_INLINE V16 operator+(V16 a, V16 b) {
    return by_parts([&](int i) { return a.part[i] + b.part[i]; });
}

INTAGLIO_INLINE V16 operator-(V16 a, V16 b) {
    return by_parts([&](int i) { return a.part[i] - b.part[i]; });
}

INTAGLIO_INLINE V16 operator*(V16 a, V16 b) {
    return by_parts([&](int i) { return a.part[i] * b.part[i]; });
}

INTAGLIO_INLINE V16 operator/(V16 a, V16 b) {
    return by_parts([&](int i) { return a.part[i] / b.part[i]; });
}

// a * b + c; one rounding where the machine has FMA.
INTAGLIO_INLINE Floats fma(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

INTAGLIO_INLINE V16 fma(V16 a, V16 b, V16 c) {
    return by_parts([&](int i) { return fma(a.part[i], b.part[i], c.part[i]); });
}

INTAGLIO_INLINE V16 to_float(I16 v) {
    return by_parts([&](int i) { return __builtin_convertvector(v.part[i], Floats); });
}

INTAGLIO_INLINE V16 maximum(V16 a, V16 b) {
    return by_parts([&](int i) { return a.part[i] > b.part[i] ? a.part[i] : b.part[i]; });
}

// The lanes combined by f, in halves: lane i with lane i + 8, then i + 4, i + 2, i + 1. The same tree on every machine.
template <class Function>
INTAGLIO_INLINE float fold(V16 v, Function f) {
#if defined(__AVX2__)
#if defined(__AVX512F__)
    const __m256 wide = (__m256)f(_mm512_castps512_ps256((__m512)v.part[0]), _mm512_extractf32x8_ps((__m512)v.part[0], 1));
#else
    const __m256 wide = (__m256)f((__m256)v.part[0], (__m256)v.part[1]);
#endif
    const __m128 four = f(_mm256_castps256_ps128(wide), _mm256_extractf128_ps(wide, 1));
    const __m128 two = f(four, _mm_movehl_ps(four, four));
    return f(two, _mm_movehdup_ps(two))[0];
#else
    const Floats four = f(f(v.part[0], v.part[2]), f(v.part[1], v.part[3]));
    const Floats two = f(four, Floats{four[2], four[3]});
    return f(two, Floats{two[1]})[0];
#endif
}

INTAGLIO_INLINE float sum(V16 v) {
    return fold(v, [](auto a, auto b) { return a + b; });
}

INTAGLIO_INLINE float max(V16 v) {
    return fold(v, [](auto a, auto b) { return a > b ? a : b; });
}

// The largest magnitude. A NaN counts as larger than everything, because the bits of floats without sign are compared.
INTAGLIO_INLINE float largest_magnitude(V16 a, V16 b) {
    I16 larger;
    for (int i = 0; i < kParts; i++) {
        const Ints x = (Ints)a.part[i] & 0x7fffffff, y = (Ints)b.part[i] & 0x7fffffff;
        larger.part[i] = x > y ? x : y;
    }
    int32_t bits;
#if defined(__AVX512F__)
    bits = _mm512_reduce_max_epi32((__m512i)larger.part[0]);
#else
    int32_t lanes[16];
    std::memcpy(lanes, &larger, sizeof lanes);
    bits = lanes[0];
    for (int i = 1; i < 16; i++) bits = lanes[i] > bits ? lanes[i] : bits;
#endif
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// The nearest whole numbers, ties to even, of magnitudes below 2^22: adding 1.5 * 2^23 leaves them in the low bits.
INTAGLIO_INLINE I16 nearest(V16 v) {
    I16 whole;
    for (int i = 0; i < kParts; i++) whole.part[i] = (Ints)(v.part[i] + every(12582912.0f)) - 0x4B400000;
    return whole;
}

INTAGLIO_INLINE I16 operator+(I16 a, I16 b) {
    for (int i = 0; i < kParts; i++) a.part[i] += b.part[i];
    return a;
}

INTAGLIO_INLINE int32_t total(I16 v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_epi32((__m512i)v.part[0]);
#else
    int32_t result = 0;
    for (int i = 0; i < kParts; i++)
        for (int lane = 0; lane < kLanes; lane++) result += v.part[i][lane];
    return result;
#endif
}

// The low bytes.
INTAGLIO_INLINE void store_bytes(int8_t* p, I16 v) {
    typedef int8_t Bytes __attribute__((vector_size(kLanes)));
    for (int i = 0; i < kParts; i++) {
        const Bytes bytes = __builtin_convertvector(v.part[i], Bytes);
        std::memcpy(p + i * kLanes, &bytes, sizeof bytes);
    }
}

// Sixteen 8-bit whole numbers.
INTAGLIO_INLINE V16 load_bytes(const int8_t* p) {
#if defined(__AVX512F__)
    return {(Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)))};
#elif defined(__AVX2__)
    return by_parts(
        [&](int i) { return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)(p + 8 * i)))); });
#else
    float lanes[16];
    for (int i = 0; i < 16; i++) lanes[i] = p[i];
    return load(lanes);
#endif
}

// Sixteen half-precision numbers.
INTAGLIO_INLINE V16 load_half(const uint16_t* p) {
#if defined(__AVX512F__)
    return {(Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))};
#elif defined(__F16C__)
    return by_parts([&](int i) { return (Floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8 * i))); });
#else
    float lanes[16];
    for (int i = 0; i < 16; i++) {
        const uint32_t half = p[i], sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, mantissa = half & 1023;
        if (exponent == 0) {
            const float value = std::ldexp((float)mantissa, -24);
            lanes[i] = sign ? -value : value;
            continue;
        }
        const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
        std::memcpy(&lanes[i], &bits, 4);
    }
    return load(lanes);
#endif
}

// Sixteen bfloat16 numbers: the upper halves of floats.
INTAGLIO_INLINE V16 load_bfloat(const uint16_t* p) {
    typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
    return by_parts([&](int i) {
        Halves halves;
        std::memcpy(&halves, p + i * kLanes, sizeof halves);
        return (Floats)(__builtin_convertvector(halves, Words) << 16);
    });
}

// exp(x), relative error below 2e-7; 0 below -87. Cody and Waite's reduction, then a polynomial of degree 6.
INTAGLIO_INLINE Floats exp(Floats x) {
    const Floats low = every(-87.0f), high = every(88.0f);
    const Ints underflow = x < low;
    x = x < low ? low : x;
    x = x > high ? high : x;
    const Floats shifted = fma(x, every(1.44269504088896341f), every(12582912.0f));  // 1.5 * 2^23: rounds to whole
    const Floats n = shifted - every(12582912.0f);
    Floats r = fma(n, every(-0.693359375f), x);
    r = fma(n, every(2.12194440e-4f), r);
    Floats p = every(1.9875691500e-4f);
    p = fma(p, r, every(1.3981999507e-3f));
    p = fma(p, r, every(8.3334519073e-3f));
    p = fma(p, r, every(4.1665795894e-2f));
    p = fma(p, r, every(1.6666665459e-1f));
    p = fma(p, r, every(5.0000001201e-1f));
    p = fma(p, r * r, r + every(1.0f));
    const Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
    const Floats result = p * (Floats)power;
    return underflow ? Floats{} : result;
}

INTAGLIO_INLINE V16 exp(V16 x) {
    return by_parts([&](int i) { return exp(x.part[i]); });
}

INTAGLIO_INLINE V16 tanh(V16 x) {
    // tanh(x) = 1 - 2 / (exp(2x) + 1); exp is bounded, so neither end overflows.
    return broadcast(1.0f) - broadcast(2.0f) / (exp(x + x) + broadcast(1.0f));
}

// A range of elements through a function of sixteen; the tail is padded, so it computes as the rest does.
template <class Function>
inline void by_sixteen(float* out, int64_t begin, int64_t end, Function f) {
    int64_t i = begin;
    for (; i + 16 <= end; i += 16) store(out + i, f(i, 16));
    if (i < end) {
        float lanes[16];
        store(lanes, f(i, end - i));
        std::memcpy(out + i, lanes, (end - i) * sizeof(float));
    }
}

}  // namespace intaglio::ISA
