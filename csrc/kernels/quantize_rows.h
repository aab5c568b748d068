// Activations as int8, for the instruction sets that multiply int8.
#pragma once

#include <cmath>
#include <cstring>

#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace intaglio::ISA {
namespace {

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
                // A group of (nearly) zeros, or one with an infinity or a NaN, which makes all outputs of the row NaN.
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

}  // namespace
}  // namespace intaglio::ISA
