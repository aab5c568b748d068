// What the adapters of a plan change in one call of a forward, checked against what the call computes with.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels.h"
#include "plans.h"

namespace intaglio {

// What an adapter changes in one call. Raises ValueError if it has none such, or its rows are not there.
inline const LoraCallParts& call_of(const LoraPlan::Segment& segment, int64_t call, int64_t rows) {
    const auto& calls = segment.weights->calls();
    check(segment.stop <= rows, "a segment is outside the rows");
    check(0 <= call && call < (int64_t)calls.size(), "an adapter has no such call");
    return calls[call];
}

// A run of rows and the weights that a norm has for them.
struct NormRun {
    int64_t start, stop;
    const float* weight;
};

// All rows of a call, by the norm weights that its norm `slot` has for them: those of their adapter, or the base's. Raises
// ValueError if an adapter's do not fit.
inline std::vector<NormRun> norm_runs(const LoraPlan* plan, int64_t call, size_t slot, const float* base, int64_t rows,
                                      int64_t width) {
    std::vector<NormRun> others;
    if (!plan) return {{0, rows, base}};
    for (const LoraPlan::Segment& segment : plan->segments) {
        const auto& norms = call_of(segment, call, rows).norms;
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

// do(begin, end, weight) for the rows [begin, end) of each run.
template <class F>
void by_runs(const std::vector<NormRun>& runs, int64_t begin, int64_t end, F f) {
    for (const NormRun& run : runs)
        if (run.start < end && begin < run.stop) f(std::max(begin, run.start), std::min(end, run.stop), run.weight);
}

// One matrix of a call, and where its product goes: [rows, out].
struct Product {
    Matrix matrix;
    float* y;
};

// What one segment does to one matrix: where its x . At is found among the pieces of work, and in the scratch memory.
struct Shrink {
    int64_t start, rows;
    const LoraPart* part;
    int64_t first_piece, offset;
    float scale;  // of the segment
};

// All of them in one call, by segment, then by matrix.
struct LoraCall {
    std::vector<Shrink> shrinks;
    int64_t pieces = 0, floats = 0;
};

// What the adapters of a plan (if there is one) add to the products of `rows` rows. Raises ValueError unless they fit them.
inline LoraCall lora_call(const LoraPlan* plan, int64_t call, const std::vector<Product>& products, int64_t rows) {
    LoraCall lora;
    if (!plan) return lora;
    lora.shrinks.reserve(plan->segments.size() * products.size());
    for (const LoraPlan::Segment& segment : plan->segments) {
        const std::vector<LoraPart>& parts = call_of(segment, call, rows).parts;
        check(parts.size() == products.size(), "linears: one pair per matrix");
        for (size_t i = 0; i < products.size(); i++) {
            const LoraPart& part = parts[i];
            check(!part.rank || (part.in == products[i].matrix.in && part.out == products[i].matrix.out),
                  "linears: an adapter's shapes do not fit the matrix");
            lora.shrinks.push_back(
                {segment.start, segment.stop - segment.start, &part, lora.pieces, lora.floats, segment.scale});
            lora.pieces += (part.rank + kRanks - 1) / kRanks;
            lora.floats += part.rank * (segment.stop - segment.start);
        }
    }
    return lora;
}

// Raises ValueError unless the adapters of a plan (if there is one) fit a table whose rows are looked up.
inline void check_lookup(const LoraPlan* plan, int64_t call, const Matrix& table, int64_t rows) {
    if (!plan) return;
    for (const LoraPlan::Segment& segment : plan->segments) {
        const std::vector<LoraPart>& parts = call_of(segment, call, rows).parts;
        check(parts.size() == 1, "embed: one pair per table");
        const LoraPart& part = parts[0];
        check(!part.rank || (part.in == table.out && part.out == table.in && !part.bias),
              "embed: an adapter's shapes do not fit the table");
    }
}

}  // namespace intaglio
