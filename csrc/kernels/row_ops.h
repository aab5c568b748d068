// Operations row by row: embedding lookup, norms, sums, rotation, the gate.
#pragma once

#include <cmath>

#include "kernels/kernels.h"
#include "kernels/simd.h"
#include "kernels/weight_values.h"

namespace intaglio::ISA {
namespace {

inline float dot(const float* x, const float* y, int64_t n) {
    V16 acc{};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) acc = fma(load(x + i), load(y + i), acc);
    float total = sum(acc);
    for (; i < n; i++) total += x[i] * y[i];
    return total;
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

void rms_norm(const float* x, const float* weight, const float* residual, float eps, int64_t width, float* out, int64_t begin,
              int64_t end) {
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

void rope(float* x, const float* norm, float eps, const float* angles, const int32_t* positions, int32_t heads, int32_t dim,
          int64_t begin, int64_t end) {
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
    by_sixteen(out, begin, end, [&](int64_t i, int64_t n) { return gelu(load_some(gate + i, n)) * load_some(up + i, n); });
}

}  // namespace
}  // namespace intaglio::ISA
