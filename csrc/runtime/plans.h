// Plans that all projections of one step share: which rows have which adapter, and which sequence.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/kernels.h"
#include "runtime/adapter_weights.h"
#include "runtime/checks.h"

namespace intaglio {

// Which rows of a step have which adapter: made once, used by every projection of the step.
struct LoraPlan {
    struct Segment {
        int64_t start, stop;
        std::shared_ptr<const AdapterWeights> weights;
        float scale;
    };

    explicit LoraPlan(std::vector<Segment> segments_) : segments(std::move(segments_)) {
        for (const Segment& segment : segments) {
            check(0 <= segment.start && segment.start <= segment.stop, "lora: a segment ends before it starts");
            check(segment.weights != nullptr, "lora: a segment without an adapter");
        }
    }

    LoraPlan(const LoraPlan&) = delete;

    std::vector<Segment> segments;
};

// One sequence's part of a step; see AttentionRow in src/intaglio/ops/attention.py.
struct SequenceRows {
    int32_t start, stop, context, first_key;
    std::vector<int32_t> block_table;
};

// What the attention of one step reads, and where it writes: made once, used by every layer of a group.
struct AttentionPlan {
    std::vector<AttentionRow> rows;
    std::vector<int32_t> blocks;
    std::vector<int32_t> positions, slots;  // of each token: its place in its sequence, and in the cache
    int64_t longest = 0, highest_block = -1, highest_position = 0, block_size;

    AttentionPlan(const std::vector<SequenceRows>& sequences, int64_t block_size_) : block_size(block_size_) {
        check(0 < block_size && block_size < (1 << 20), "attention: blocks have at least one token, and fewer than 2^20");
        std::vector<size_t> starts;
        for (const auto& [start, stop, context, first_key, table] : sequences) {
            check(start == tokens() && start <= stop && stop - start <= context,
                  "attention: rows are contiguous, and a sequence has at most as many rows as tokens");
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
