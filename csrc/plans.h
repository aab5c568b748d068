// What the calls of one step have in common, as Python hands it over: which rows have which adapter, and which sequence.
#pragma once

#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "adapters.h"
#include "kernels.h"
#include "python_types.h"

namespace intaglio {

// Which rows of a step have which adapter: made once, used by every call of the step.
struct LoraPlan {
    struct Segment {
        int64_t start, stop;
        const AdapterWeights* weights;
        float scale;
    };

    explicit LoraPlan(nb::list items) {
        for (nb::handle item : items) {
            auto [start, stop, weights, scale] = nb::cast<std::tuple<int64_t, int64_t, nb::object, float>>(item);
            check(0 <= start && start <= stop, "lora: a segment ends before it starts");
            check(!weights.is_none(), "lora: a segment without an adapter");
            segments.push_back({start, stop, nb::cast<const AdapterWeights*>(weights), scale});
            owners_.push_back(std::move(weights));
        }
    }

    LoraPlan(const LoraPlan&) = delete;

    std::vector<Segment> segments;

private:
    std::vector<nb::object> owners_;
};

// What the attention calls of one step look at, and where they write: made once, used by every layer of a group.
struct AttentionPlan {
    std::vector<AttentionRow> rows;
    std::vector<int32_t> blocks;
    std::vector<int32_t> positions, slots;  // of each token: its place in its sequence, and in the cache
    int64_t longest = 0, highest_block = -1, highest_position = 0, block_size;

    AttentionPlan(nb::list items, int64_t block_size_) : block_size(block_size_) {
        check(0 < block_size && block_size < (1 << 20), "attention: blocks have at least one token, and fewer than 2^20");
        std::vector<size_t> starts;
        for (nb::handle item : items) {
            auto [start, stop, context, first_key, table] =
                nb::cast<std::tuple<int32_t, int32_t, int32_t, int32_t, std::vector<int32_t>>>(item);
            check(start == tokens() && start <= stop && stop - start <= context,
                  "attention: rows follow each other, and a sequence has no more of them than tokens");
            check(0 <= first_key && first_key <= context - (stop - start) && first_key % block_size == 0 &&
                      (int64_t)table.size() * block_size >= context - first_key,
                  "attention: a sequence is larger than its blocks");
            starts.push_back(blocks.size());
            blocks.insert(blocks.end(), table.begin(), table.end());
            for (const int32_t block : table) {
                check(block >= 0, "attention: no such block");
                highest_block = std::max<int64_t>(highest_block, block);
            }
            for (int32_t position = context - (stop - start); position < context; position++) {
                positions.push_back(position);
                slots.push_back(table[(position - first_key) / block_size] * (int32_t)block_size +
                                position % (int32_t)block_size);
                highest_position = std::max<int64_t>(highest_position, position);
            }
            rows.push_back({start, stop, context, first_key, nullptr});
            longest = std::max<int64_t>(longest, context);
        }
        for (size_t i = 0; i < rows.size(); i++) rows[i].blocks = blocks.data() + starts[i];
    }

    AttentionPlan(const AttentionPlan&) = delete;

    int64_t tokens() const { return positions.size(); }
};

}  // namespace intaglio
