// Choosing one token from one row of logits; src/intaglio/ops/sampling.py is the specification, with the same order of steps.
//
// It is C++ because a row has 262,144 logits: whole rows are read in a few vector passes, and only the few tokens that top-k and
// top-p may keep are sorted.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/kernels.h"

namespace intaglio {

struct SamplingParams {
    float temperature;  // > 0
    int64_t top_k;      // 0: off
    double top_p;       // 1: off
    double uniform;     // in [0, 1)
};

// Ids, ascending, and weights of the tokens that may still be chosen.
struct Kept {
    std::vector<int32_t> ids;
    std::vector<float> weights;
};

// The k-th largest value, by a heap of the k best so far, which few elements enter.
inline float kth_largest(const float* x, int64_t n, int64_t k) {
    std::vector<float> best(x, x + k);
    std::make_heap(best.begin(), best.end(), std::greater<>());
    for (int64_t i = k; i < n; i++)
        if (x[i] > best.front()) {
            std::pop_heap(best.begin(), best.end(), std::greater<>());
            best.back() = x[i];
            std::push_heap(best.begin(), best.end(), std::greater<>());
        }
    return best.front();
}

inline Kept keep_top_k(const float* logits, const float* weights, int64_t n, int64_t k) {
    Kept kept;
    const float least = kth_largest(logits, n, k);
    for (int64_t i = 0; i < n; i++)
        if (logits[i] >= least) {
            kept.ids.push_back((int32_t)i);
            kept.weights.push_back(weights[i]);
        }
    return kept;
}

// The fewest best tokens whose weight reaches p of the total; of equal ones the lower id first.
inline Kept keep_top_p(const int32_t* ids, const float* weights, int64_t n, double total, double p) {
    const double wanted = p * total;
    // Only heavy tokens can be among the best: take those above a bound, and lower the bound until they reach p.
    float bound = 1e-3f;  // the best token's weight is 1
    std::vector<int64_t> order;
    for (;; bound *= 1e-3f) {
        order.clear();
        double reached = 0;
        for (int64_t i = 0; i < n; i++)
            if (weights[i] >= bound) {
                order.push_back(i);
                reached += weights[i];
            }
        if (reached > wanted * (1 + 1e-9) || (int64_t)order.size() == n || bound == 0) break;
    }
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return weights[a] > weights[b]; });
    double reached = 0;
    size_t count = 0;
    while (count < order.size()) {
        reached += weights[order[count++]];
        if (reached >= wanted) break;
    }
    order.resize(count);
    std::sort(order.begin(), order.end());
    Kept kept;
    for (const int64_t i : order) {
        kept.ids.push_back(ids ? ids[i] : (int32_t)i);
        kept.weights.push_back(weights[i]);
    }
    return kept;
}

inline int64_t draw(const int32_t* ids, const float* weights, int64_t n, double uniform) {
    double total = 0;
    for (int64_t i = 0; i < n; i++) total += weights[i];
    const double wanted = uniform * total;
    double reached = 0;
    for (int64_t i = 0; i < n; i++) {
        reached += weights[i];
        if (reached > wanted) return ids ? ids[i] : i;
    }
    return ids ? ids[n - 1] : n - 1;
}

// The chosen id; -1 if the best logit is not finite. temperature 0 takes the best. scratch holds n floats.
inline int64_t sample(const Kernels& kernels, const float* logits, int64_t n, const SamplingParams& params, float* scratch) {
    float best;
    const int64_t greedy = kernels.argmax(logits, n, &best);
    if (!std::isfinite(best)) return -1;
    if (params.temperature == 0 || params.top_k == 1 || params.top_p == 0) return greedy;
    // At the tiniest temperatures the factor would be infinite, and 0 times that is not a number.
    const float factor = std::min(1.0f / params.temperature, std::numeric_limits<float>::max());
    double total = kernels.exponentials(logits, n, best, factor, scratch);
    const bool by_k = params.top_k > 0 && params.top_k < n, by_p = params.top_p < 1;
    if (!by_k && !by_p) return draw(nullptr, scratch, n, params.uniform);
    Kept kept;
    if (by_k) {
        kept = keep_top_k(logits, scratch, n, params.top_k);
        total = 0;
        for (const float weight : kept.weights) total += weight;
    }
    if (by_p)
        kept = by_k ? keep_top_p(kept.ids.data(), kept.weights.data(), (int64_t)kept.ids.size(), total, params.top_p)
                    : keep_top_p(nullptr, scratch, n, total, params.top_p);
    return draw(kept.ids.data(), kept.weights.data(), (int64_t)kept.ids.size(), params.uniform);
}

}  // namespace intaglio
