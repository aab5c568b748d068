// The passes over a whole row of logits that sampling (sampler.h) needs.
#pragma once

#include <cmath>

#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace intaglio::ISA {
namespace {

int64_t argmax(const float* x, int64_t n, float* best) {
    // Each lane keeps its largest value and its first index. A NaN never compares as larger, so NaNs are tracked separately.
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
}  // namespace intaglio::ISA
