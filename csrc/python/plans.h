// Reads the plans of a step from Python's lists of tuples.
#pragma once

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "python/arrays.h"
#include "runtime/plans.h"

namespace intaglio {

// items: (start, stop, adapter weights, scale). The plan keeps the weights alive.
inline std::vector<LoraPlan::Segment> read_segments(const nb::list& items) {
    std::vector<LoraPlan::Segment> segments;
    segments.reserve(items.size());
    for (nb::handle item : items) {
        auto [start, stop, weights, scale] =
            nb::cast<std::tuple<int64_t, int64_t, std::shared_ptr<AdapterWeights>, float>>(item);
        segments.push_back({start, stop, std::move(weights), scale});
    }
    return segments;
}

// items: (start, stop, context, first_key, block_table)
inline std::vector<SequenceRows> read_sequences(const nb::list& items) {
    std::vector<SequenceRows> sequences;
    sequences.reserve(items.size());
    for (nb::handle item : items) {
        auto [start, stop, context, first_key, table] =
            nb::cast<std::tuple<int32_t, int32_t, int32_t, int32_t, std::vector<int32_t>>>(item);
        sequences.push_back({start, stop, context, first_key, std::move(table)});
    }
    return sequences;
}

}  // namespace intaglio
