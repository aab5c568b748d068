// What the adapters of a plan change in one projection (a fused matrix product, a lookup or a norm of a forward, by its index),
// checked against what the projection computes with.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/kernels.h"
#include "runtime/checks.h"
#include "runtime/plans.h"

namespace intaglio {

// What an adapter changes in one projection. Throws if it has no such projection, or its rows are outside the step.
inline const ProjectionWeights& projection_of(const LoraPlan::Segment& segment, int64_t projection, int64_t rows) {
    const auto& projections = segment.weights->projections();
    check(segment.stop <= rows, "a segment is outside the rows");
    check(0 <= projection && projection < (int64_t)projections.size(), "an adapter has no such projection");
    return projections[projection];
}

// A run of rows and the weights that a norm has for them.
struct NormRun {
    int64_t start, stop;
    const float* weight;
};

// All rows in runs with the same weights of the projection's norm `slot`: the adapter's or the base's. Throws if an adapter's
// weights do not fit.
inline std::vector<NormRun> norm_runs(const LoraPlan* plan, int64_t projection, size_t slot, const float* base, int64_t rows,
                                      int64_t width) {
    std::vector<NormRun> others;
    if (!plan) return {{0, rows, base}};
    for (const LoraPlan::Segment& segment : plan->segments) {
        const auto& norms = projection_of(segment, projection, rows).norms;
        if (slot >= norms.size() || !norms[slot].first || segment.start == segment.stop) continue;
        check(norms[slot].second == width, "an adapter's norm has another width");
        others.push_back({segment.start, segment.stop, norms[slot].first});
    }
    std::sort(others.begin(), others.end(), [](const NormRun& a, const NormRun& b) { return a.start < b.start; });
    std::vector<NormRun> runs;
    int64_t at = 0;
    for (const NormRun& run : others) {
        check(at <= run.start, "two adapters replace the norm of one row");
        if (at < run.start) runs.push_back({at, run.start, base});
        runs.push_back(run);
        at = run.stop;
    }
    if (at < rows) runs.push_back({at, rows, base});
    return runs;
}

// f(first, last, weight) for each run's part of the rows [begin, end).
template <class F>
void for_each_run(const std::vector<NormRun>& runs, int64_t begin, int64_t end, F f) {
    for (const NormRun& run : runs)
        if (run.start < end && begin < run.stop) f(std::max(begin, run.start), std::min(end, run.stop), run.weight);
}

// One matrix of a projection, and where its product goes: [rows, out].
struct Product {
    Matrix matrix;
    float* y;
};

// The shrink of one segment for one matrix, x . At: its first piece of work, and its offset in the scratch memory.
struct Shrink {
    int64_t start, rows;
    const LoraPair* pair;
    int64_t first_piece, offset;
    float scale;  // of the segment
};

// All shrinks of one projection, by segment, then by matrix.
struct LoraWork {
    std::vector<Shrink> shrinks;
    int64_t pieces = 0, floats = 0;
};

// What the adapters of a plan (if there is one) add to the products of `rows` rows. Throws unless they fit.
inline LoraWork lora_work(const LoraPlan* plan, int64_t projection, const std::vector<Product>& products, int64_t rows) {
    LoraWork lora;
    if (!plan) return lora;
    lora.shrinks.reserve(plan->segments.size() * products.size());
    for (const LoraPlan::Segment& segment : plan->segments) {
        const std::vector<LoraPair>& pairs = projection_of(segment, projection, rows).pairs;
        check(pairs.size() == products.size(), "linears: one pair per matrix");
        for (size_t i = 0; i < products.size(); i++) {
            const LoraPair& pair = pairs[i];
            check(!pair.rank || (pair.in == products[i].matrix.in && pair.out == products[i].matrix.out),
                  "linears: an adapter's shapes do not fit the matrix");
            lora.shrinks.push_back(
                {segment.start, segment.stop - segment.start, &pair, lora.pieces, lora.floats, segment.scale});
            lora.pieces += (pair.rank + kRanks - 1) / kRanks;
            lora.floats += pair.rank * (segment.stop - segment.start);
        }
    }
    return lora;
}

// Throws unless the adapters of a plan (if there is one) fit a table whose rows are looked up.
inline void check_lookup(const LoraPlan* plan, int64_t projection, const Matrix& table, int64_t rows) {
    if (!plan) return;
    for (const LoraPlan::Segment& segment : plan->segments) {
        const std::vector<LoraPair>& pairs = projection_of(segment, projection, rows).pairs;
        check(pairs.size() == 1, "embed: one pair per table");
        const LoraPair& pair = pairs[0];
        check(!pair.rank || (pair.in == table.out && pair.out == table.in && !pair.bias),
              "embed: an adapter's shapes do not fit the table");
    }
}

}  // namespace intaglio
