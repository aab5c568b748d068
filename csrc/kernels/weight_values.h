// Single numbers of a weight matrix; the layouts are those of Matrix in kernels.h.
#pragma once

#include <cstring>

#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace intaglio::ISA {
namespace {

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

// The values of one group of inputs of one output of a quantized matrix.
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
            if (w.format == Format::w8)
                number = own[quad * 64 + i];
            else
                number = quad < 4 ? own[quad * 64 + i] & 15 : own[(quad - 4) * 64 + i] >> 4;
            if (w.format == Format::w5) number |= (bytes[256 + quad * 8 + lane / 2] >> (lane % 2 * 4 + i) & 1) << 4;
        }
    const int centre = w.format == Format::w8 ? 128 : w.minima ? 0 : w.format == Format::w5 ? 16 : 8;
    for (int i = 0; i < kGroup; i++) numbers[i] = scale * (q[i] - centre);
    if (w.minima)
        for (int i = 0; i < kGroup; i++) numbers[i] -= minimum;
}

}  // namespace
}  // namespace intaglio::ISA
