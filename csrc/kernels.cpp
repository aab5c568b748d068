// All kernels, compiled once per instruction set: ISA names the namespace, the compiler's flags say what it may use.
//
// Two rules give every row its own fixed arithmetic, whatever else is in the batch: a sum runs over the same elements in the
// same order whether one row is computed or many, and no sum is split between threads. The products of int8 are summed in
// int32 within a group of 32, which is exact, so there the order does not even matter.
#include "attention.h"
#include "kernels.h"
#include "lora.h"
#include "simd.h"
#include "unpack.h"
#if defined(__AMX_BF16__)
#include "tiles.h"
#endif

namespace intaglio::ISA {
namespace {

// ------------------------------------------------------------------------------------------------- int8 activations

#if !defined(__AMX_BF16__)  // tiles multiply bfloat16

int64_t quantized_size(int64_t rows, int64_t in) { return rows * group_count(in) * kGroup; }

constexpr float kSmallest = 1e-36f;  // below it 127 / x is more than a float holds

void quantize_rows(const float* x, int64_t in, const QuantizedRows& to, int64_t begin, int64_t end) {
    const int64_t groups = group_count(in);
    int8_t* values = to.values;
    float* scales = to.scales;
    int32_t* sums = to.sums;
    for (int64_t row = begin; row < end; row++)
        for (int64_t g = 0; g < groups; g++) {
            const int64_t at = (row * groups + g) * kGroup;
            const float* from = x + row * in + g * kGroup;
            const V16 low = load_some(from, in - g * kGroup), high = load_some(from + 16, in - g * kGroup - 16);
            const float largest = largest_magnitude(low, high);
            if (!(largest >= kSmallest && std::isfinite(largest))) {
                // Nothing but zeros, or next to it; or an infinity or a NaN, which the whole row's outputs then are.
                std::memset(values + at, 0, kGroup);
                scales[row * groups + g] = std::isfinite(largest) ? 0.0f : NAN;
                sums[row * groups + g] = 0;
                continue;
            }
            const float inverse = 127.0f / largest;
            const I16 first = nearest(low * broadcast(inverse)), second = nearest(high * broadcast(inverse));
            store_bytes(values + at, first);
            store_bytes(values + at + 16, second);
            scales[row * groups + g] = largest / 127.0f;
            sums[row * groups + g] = total(first + second);
        }
}

#endif

// ------------------------------------------------------------------------- exact dot products of one tile and one group

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
                int32_t four;
                std::memcpy(&four, x[r] + quad * 4, 4);
                // |w| * (x with w's sign): pairs stay below 2 * 128 * 127 = 32512, so nothing saturates.
                const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(_mm256_set1_epi32(four), value));
                acc[r][half] = _mm256_add_epi32(acc[r][half], _mm256_madd_epi16(pairs, ones));
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
                for (int i = 0; i < 4; i++)
                    lanes[o] += ((int32_t)w[quad * 64 + o * 4 + i] - 128) * x[r][quad * 4 + i];
        std::memcpy(&d[r], lanes, 64);
    }
    (void)sums;
#endif
}

// The same for w4 and, with Five, for w5: unsigned numbers, which the caller puts in their place.
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
    const __m256i ones = _mm256_set1_epi16(1), mask = _mm256_set1_epi8(15);
    __m256i acc[R][2];
    for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
    for (int pair = 0; pair < 4; pair++)
        for (int half = 0; half < 2; half++) {
            const __m256i bytes = _mm256_loadu_si256((const __m256i*)(w + pair * 64 + half * 32));
            __m256i low = _mm256_and_si256(bytes, mask);
            __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
            if constexpr (Five) {
                low = with_fifth(low, bits + pair * 8 + half * 4);
                high = with_fifth(high, bits + 32 + pair * 8 + half * 4);
            }
            for (int r = 0; r < R; r++) {
                int32_t first, second;
                std::memcpy(&first, x[r] + pair * 4, 4);
                std::memcpy(&second, x[r] + 16 + pair * 4, 4);
                // Two pairs stay below 4 * 31 * 127 = 15748, so nothing saturates.
                const __m256i a = _mm256_maddubs_epi16(low, _mm256_set1_epi32(first));
                const __m256i b = _mm256_maddubs_epi16(high, _mm256_set1_epi32(second));
                acc[r][half] = _mm256_add_epi32(acc[r][half], _mm256_madd_epi16(_mm256_add_epi16(a, b), ones));
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
                acc[r][part] =
                    vdotq_s32(acc[r][part], vreinterpretq_s8_u8(high), vreinterpretq_s8_s32(vdupq_n_s32(second)));
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

// --------------------------------------------------------------------------------------------------- matrix products

// R rows of one tile. The float sum runs over the groups in order, the same for every R. Minima: whether a w4 or w5 has them.
// With `ahead` the next tile is fetched meanwhile: left alone, the machine waits for memory and computes by turns.
template <Format F, bool Minima, int R>
void quantized_rows(const Matrix& w, const QuantizedRows& q, int64_t tile, int64_t row, bool ahead, float* y,
                    int64_t ldy) {
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

template <Format F>
inline V16 load_weight(const void* values, int64_t at) {
    if constexpr (F == Format::bf16) return load_bfloat((const uint16_t*)values + at);
    return load((const float*)values + at);
}

template <Format F>
inline float weight_at(const void* values, int64_t at) {
    if constexpr (F == Format::bf16) {
        const uint32_t bits = (uint32_t)((const uint16_t*)values)[at] << 16;
        float value;
        std::memcpy(&value, &bits, 4);
        return value;
    }
    return ((const float*)values)[at];
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
void matmul_format(const Matrix& w, const float* x, const QuantizedRows& q, int64_t rows, float* y, int64_t ldy,
                   int64_t begin, int64_t end) {
    // Rows in pieces that stay in the second-level cache while all tiles go over them.
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

void matmul(const Matrix& w, const float* x, const QuantizedRows& q, int64_t rows, float* y, int64_t ldy, int64_t begin,
            int64_t end) {
    switch (w.format) {
        case Format::f32: return matmul_format<Format::f32>(w, x, q, rows, y, ldy, begin, end);
        case Format::bf16: return matmul_format<Format::bf16>(w, x, q, rows, y, ldy, begin, end);
#if defined(__AMX_BF16__)
        default: return product_on_tiles(w, q, rows, y, ldy, begin, end);
#else
        case Format::w8: return matmul_format<Format::w8>(w, x, q, rows, y, ldy, begin, end);
        case Format::w5:
            return w.minima ? matmul_format<Format::w5, true>(w, x, q, rows, y, ldy, begin, end)
                            : matmul_format<Format::w5, false>(w, x, q, rows, y, ldy, begin, end);
        case Format::w4:
            return w.minima ? matmul_format<Format::w4, true>(w, x, q, rows, y, ldy, begin, end)
                            : matmul_format<Format::w4, false>(w, x, q, rows, y, ldy, begin, end);
#endif
    }
}

// ------------------------------------------------------------------------------------------------------- row by row

inline float dot(const float* x, const float* y, int64_t n) {
    V16 acc{};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) acc = fma(load(x + i), load(y + i), acc);
    float total = sum(acc);
    for (; i < n; i++) total += x[i] * y[i];
    return total;
}

// One group of inputs of one output of a quantized matrix, as numbers.
inline void group_numbers(const Matrix& w, int64_t tile, int64_t lane, int64_t group, float* numbers) {
    const int64_t at = tile * group_count(w.in) + group;
    uint16_t halves[16] = {w.scales[at * kTile + lane]};
    if (w.minima) halves[1] = w.minima[at * kTile + lane];
    float both[16];
    store(both, load_half(halves));
    const float scale = both[0], minimum = both[1];
    const uint8_t* const bytes = (const uint8_t*)w.values + at * group_bytes(w.format);
    const uint8_t* const own = bytes + lane * 4;  // in each quad
    int q[kGroup];
    for (int quad = 0; quad < kGroup / 4; quad++)
        for (int i = 0; i < 4; i++) {
            int& number = q[quad * 4 + i];
            if (w.format == Format::w8) number = own[quad * 64 + i];
            else number = quad < 4 ? own[quad * 64 + i] & 15 : own[(quad - 4) * 64 + i] >> 4;
            if (w.format == Format::w5) number |= (bytes[256 + quad * 8 + lane / 2] >> (lane % 2 * 4 + i) & 1) << 4;
        }
    const int centre = w.format == Format::w8 ? 128 : w.minima ? 0 : w.format == Format::w5 ? 16 : 8;
    for (int i = 0; i < kGroup; i++) numbers[i] = scale * (q[i] - centre);
    if (w.minima)
        for (int i = 0; i < kGroup; i++) numbers[i] -= minimum;
}

void embed(const Matrix& w, const int32_t* ids, float scale, float* y, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
        const int64_t id = ids[row];
        float* const out = y + row * w.in;
        if (w.format == Format::f32) {
            for (int64_t i = 0; i < w.in; i++) out[i] = weight_at<Format::f32>(w.values, id * w.in + i) * scale;
        } else if (w.format == Format::bf16) {
            for (int64_t i = 0; i < w.in; i++) out[i] = weight_at<Format::bf16>(w.values, id * w.in + i) * scale;
        } else {
            for (int64_t group = 0; group < group_count(w.in); group++) {
                float numbers[kGroup];
                group_numbers(w, id / kTile, id % kTile, group, numbers);
                const int64_t first = group * kGroup, count = w.in - first < kGroup ? w.in - first : kGroup;
                for (int64_t i = 0; i < count; i++) out[first + i] = numbers[i] * scale;
            }
        }
    }
}

void rms_norm(const float* x, const float* weight, const float* residual, float eps, int64_t width, float* out,
              int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
        const float* in = x + row * width;
        const float mean = dot(in, in, width) / (float)width;
        const float inverse = 1.0f / std::sqrt(mean + eps);
        for (int64_t i = 0; i < width; i++) {
            const float normed = in[i] * inverse * weight[i];
            out[row * width + i] = residual ? residual[row * width + i] + normed : normed;
        }
    }
}

void add(const float* x, const float* y, float* out, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) out[i] = x[i] + y[i];
}

void rope(float* x, const float* norm, float eps, const float* angles, const int32_t* positions, int32_t heads,
          int32_t dim, int64_t begin, int64_t end) {
    const int32_t half = dim / 2;
    for (int64_t token = begin; token < end; token++)
        for (int32_t head = 0; head < heads; head++) {
            float* v = x + (token * heads + head) * dim;
            if (norm) rms_norm(v, norm, nullptr, eps, dim, v, 0, 1);
            const float *c = angles + (int64_t)positions[token] * dim, *s = c + half;
            for (int32_t i = 0; i < half; i++) {
                const float first = v[i], second = v[i + half];
                v[i] = first * c[i] - second * s[i];
                v[i + half] = second * c[i] + first * s[i];
            }
        }
}

inline V16 gelu(V16 x) {
    const V16 inner = broadcast(0.79788456080286536f) * fma(broadcast(0.044715f) * x * x, x, x);
    return broadcast(0.5f) * x * (broadcast(1.0f) + tanh(inner));
}

void gelu_gate(const float* gate, const float* up, float* out, int64_t begin, int64_t end) {
    by_sixteen(out, begin, end,
               [&](int64_t i, int64_t n) { return gelu(load_some(gate + i, n)) * load_some(up + i, n); });
}

// ------------------------------------------------------------------------------------------------------------- sampling

int64_t argmax(const float* x, int64_t n, float* best) {
    // Each lane keeps its largest and where that first stood; a NaN is larger than nothing, so it is looked for apart.
    V16 largest = broadcast(-INFINITY);
    I16 place, now, nans;
    for (int i = 0; i < kParts; i++)
        for (int lane = 0; lane < kLanes; lane++) {
            now.part[i][lane] = i * kLanes + lane;
            place.part[i][lane] = nans.part[i][lane] = 0;
        }
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const V16 v = load(x + i);
        for (int p = 0; p < kParts; p++) {
            const Ints larger = v.part[p] > largest.part[p];
            largest.part[p] = larger ? v.part[p] : largest.part[p];
            place.part[p] = larger ? now.part[p] : place.part[p];
            nans.part[p] |= v.part[p] != v.part[p];
            now.part[p] += 16;
        }
    }
    float value = max(largest);
    int64_t at = n;
    for (int p = 0; p < kParts; p++)
        for (int lane = 0; lane < kLanes; lane++)
            if (largest.part[p][lane] == value && place.part[p][lane] < at) at = place.part[p][lane];
    bool has_nan = total(nans) != 0;
    for (; i < n; i++) {
        has_nan = has_nan || x[i] != x[i];
        if (x[i] > value) value = x[i], at = i;
    }
    *best = has_nan ? NAN : value;
    return at;
}

double exponentials(const float* x, int64_t n, float shift, float factor, float* p) {
    double total = 0;
    by_sixteen(p, 0, n, [&](int64_t i, int64_t count) {
        const V16 e = exp((load_some(x + i, count) - broadcast(shift)) * broadcast(factor));
        float lanes[16];
        store(lanes, e);
        for (int64_t k = 0; k < count; k++) total += lanes[k];
        return e;
    });
    return total;
}

}  // namespace

#define INTAGLIO_STRING(x) #x
#define INTAGLIO_NAME(x) INTAGLIO_STRING(x)

extern const Kernels kernels;
const Kernels kernels = {
    INTAGLIO_NAME(ISA), quantized_size, quantize_rows, matmul, lora_shrink, lora_expand, lora_lookup, embed, rms_norm,
    add,                rope,          gelu_gate,     attention, softcap,  argmax,      exponentials,
};

}  // namespace intaglio::ISA
