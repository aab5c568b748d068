// The work of an operation, cut into pieces for a pool of threads: products, what adapters add to them, norms, attention, sampling.
// All shapes were checked before (device.h).
#pragma once

#include <algorithm>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "kernels/kernels.h"
#include "runtime/adapter_weights.h"
#include "runtime/plans.h"
#include "runtime/projection.h"
#include "runtime/sampler.h"
#include "runtime/thread_pool.h"

namespace intaglio {

constexpr uintptr_t kLine = 64;          // bytes of a cache line
constexpr int64_t kRows = 8;             // rows that are quantized at a time
constexpr int64_t kReadAhead = 1 << 19;  // bytes: a quarter of a second-level cache, more than there is time to read
constexpr int64_t kFewPieces = 4;        // pieces that are computed before another thread could begin
constexpr int64_t kElements = 1024;      // of one piece in elementwise jobs

// The kernels of one instruction set on a pool of threads, with scratch memory that grows as needed. One call at a time.
class Jobs {
public:
    Jobs(const Kernels& kernels, int threads) : kernels_(kernels), pool_(threads) {}

    const char* name() const { return kernels_.name; }
    int threads() const { return pool_.threads(); }

    // -------------------------------------------------------------------------------------------------------- products

    // y = x . Wt for each matrix, plus what the adapters add. There is at least one matrix.
    void multiply(const float* x, int64_t rows, const std::vector<Product>& products, const LoraWork& lora) {
        const int64_t in = products[0].matrix.in;
        bool quantized = false;
        int64_t tiles = 0;
        for (const Product& product : products) {
            quantized = quantized || is_quantized(product.matrix.format);
            tiles += tile_count(product.matrix);
        }
        const QuantizedRows q = prepare(x, rows, in, quantized, lora);
        pool_.run(tiles, grain(tiles, rows * in), [&](int64_t begin, int64_t end, int) {
            int64_t first = 0;
            for (size_t i = 0; i < products.size(); i++) {
                const auto& [w, y] = products[i];
                const int64_t count = tile_count(w), from = std::max(begin, first), to = std::min(end, first + count);
                if (from < to) {
                    kernels_.matmul(w, x, q, rows, y, w.out, from - first, to - first);
#ifndef INTAGLIO_WITHOUT_LORA  // the benchmark `without-lora` builds the engine without LoRA
                    expand(lora, i, products.size(), w, y, (from - first) * kTile, std::min((to - first) * kTile, w.out));
#endif
                }
                first += count;
            }
        });
        expect_next(products[0].matrix);
    }

    // `multiply` into scratch memory, which the next call overwrites; sets `y` of each product.
    void multiply_into_scratch(const float* x, int64_t rows, std::vector<Product>& products, const LoraWork& lora) {
        int64_t size = 0;
        for (const Product& product : products) size += rows * product.matrix.out;
        products_.resize(std::max<size_t>(products_.size(), size));
        float* at = products_.data();
        for (Product& product : products) {
            product.y = at;
            at += rows * product.matrix.out;
        }
        multiply(x, rows, products, lora);
    }

    // Rows of a table times scale, with what the adapters of the plan (if there is one) add to them.
    void embed(const Matrix& table, const int32_t* ids, int64_t rows, float scale, const LoraPlan* plan, int64_t projection,
               float* out) {
        pool_.run(rows, 4, [&](int64_t begin, int64_t end, int) { kernels_.embed(table, ids, scale, out, begin, end); });
        if (plan)
            for (const LoraPlan::Segment& segment : plan->segments)
                add_lookup(segment.weights->projections()[projection].pairs[0], ids, scale, segment, out, table.in);
    }

    // ------------------------------------------------------------------------------------------ between two products

    void rms_norm(const float* x, const std::vector<NormRun>& norms, float eps, int64_t rows, int64_t width, float* out) {
        pool_.run(rows, 16, [&](int64_t begin, int64_t end, int) {
            for_each_run(norms, begin, end, [&](int64_t from, int64_t to, const float* norm) {
                kernels_.rms_norm(x, norm, nullptr, eps, width, out, from, to);
            });
        });
    }

    // sum = x + rms_norm(projected, post), or x + projected where a run has no weights; normed = rms_norm(sum, norm).
    void add_and_norm(const float* x, const float* projected, const std::vector<NormRun>& posts,
                      const std::vector<NormRun>& norms, float eps, int64_t rows, int64_t width, float* sum, float* normed) {
        pool_.run(rows, 16, [&](int64_t begin, int64_t end, int) {
            for_each_run(posts, begin, end, [&](int64_t from, int64_t to, const float* norm) {
                if (norm)
                    kernels_.rms_norm(projected, norm, x, eps, width, sum, from, to);
                else
                    kernels_.add(x, projected, sum, from * width, to * width);
            });
            for_each_run(norms, begin, end, [&](int64_t from, int64_t to, const float* norm) {
                kernels_.rms_norm(sum, norm, nullptr, eps, width, normed, from, to);
            });
        });
    }

    // gelu(gate) * up. Pieces are multiples of 16, so that an element is in the same lane however they are cut.
    void gelu(const float* gate, const float* up, float* out, int64_t size) {
        pool_.run((size + kElements - 1) / kElements, 4, [&](int64_t begin, int64_t end, int) {
            kernels_.gelu_gate(gate, up, out, begin * kElements, std::min(end * kElements, size));
        });
    }

    void softcap(float* x, float cap, int64_t size) {
        pool_.run((size + kElements - 1) / kElements, 16, [&](int64_t begin, int64_t end, int) {
            kernels_.softcap(x, cap, begin * kElements, std::min(end * kElements, size));
        });
    }

    // ------------------------------------------------------------------------------------------------------- attention

    // Norms (if given) and rotates q and k in place, then stores k and v in their slots. qkv: [tokens, heads, dim] each.
    void rope_and_cache(const std::vector<Product>& qkv, const Attention& a, const std::vector<NormRun>& q_norms,
                        const std::vector<NormRun>& k_norms, float eps, const float* angles, const AttentionPlan& plan) {
        const auto [heads, kv_heads, dim] = std::tuple((int32_t)a.heads, (int32_t)a.kv_heads, (int32_t)a.dim);
        const int64_t width = a.kv_heads * a.dim;
        float *const q = qkv[0].y, *const k = qkv[1].y, *const v = qkv[2].y;
        pool_.run(plan.tokens(), 8, [&](int64_t begin, int64_t end, int) {
            for_each_run(q_norms, begin, end, [&](int64_t from, int64_t to, const float* norm) {
                kernels_.rope(q, norm, eps, angles, plan.positions.data(), heads, dim, from, to);
            });
            for_each_run(k_norms, begin, end, [&](int64_t from, int64_t to, const float* norm) {
                kernels_.rope(k, norm, eps, angles, plan.positions.data(), kv_heads, dim, from, to);
            });
            for (int64_t token = begin; token < end; token++) {
                const int64_t first = (int64_t)plan.slots[token] * a.kv_heads;
                kernels_.store_heads(k + token * width, a.kv_heads, a.dim, a.format, a.keys, first);
                kernels_.store_heads(v + token * width, a.kv_heads, a.dim, a.format, a.values, first);
            }
        });
    }

    // Attention of every token over its own sequence. Sets a.tokens.
    void attention(Attention& a, const AttentionPlan& plan) {
        // The more queries a piece has, the more often it uses what it loads; but every thread needs pieces.
        const int64_t shared = plan.tokens() * a.kv_heads / (2 * pool_.threads());
        a.tokens = std::clamp<int64_t>(shared, 1, std::max<int64_t>(1, kQueries * a.kv_heads / a.heads));
        std::vector<int64_t> first{0};  // the first piece of each row
        for (const AttentionRow& row : plan.rows)
            first.push_back(first.back() + (row.stop - row.start + a.tokens - 1) / a.tokens * a.kv_heads);
        const int64_t scratch = attention_scratch(a, plan.longest);
        scratch_.resize(std::max<size_t>(scratch_.size(), scratch * pool_.threads()));
        pool_.run(first.back(), 1, [&](int64_t begin, int64_t end, int thread) {
            size_t i = std::upper_bound(first.begin(), first.end(), begin) - first.begin() - 1;
            for (; i < plan.rows.size() && first[i] < end; i++) {
                const int64_t from = std::max(begin, first[i]), to = std::min(end, first[i + 1]);
                kernels_.attention(a, plan.rows[i], scratch_.data() + thread * scratch, from - first[i], to - first[i]);
            }
        });
    }

    // ------------------------------------------------------------------------------------------------ sampling

    // One id for each row of logits [rows, width], of the first `vocab`; -1 where no logit is finite.
    void sample(const float* logits, int64_t width, int64_t vocab, const std::vector<SamplingParams>& rows, int64_t* ids) {
        scratch_.resize(std::max<size_t>(scratch_.size(), vocab * pool_.threads()));
        pool_.run(rows.size(), 1, [&](int64_t begin, int64_t end, int thread) {
            for (int64_t row = begin; row < end; row++)
                ids[row] = intaglio::sample(kernels_, logits + row * width, vocab, rows[row], scratch_.data() + thread * vocab);
        });
    }

private:
    // Tiles per piece: enough that sharing the work pays, few enough that it is shared evenly.
    int64_t grain(int64_t tiles, int64_t work_per_output) const {
        const int64_t enough = std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(1, kTile * work_per_output));
        const int64_t tiles_each = std::max<int64_t>(enough, std::min<int64_t>(64, tiles / (pool_.threads() * 8)));
        return (tiles_each + 1) / 2 * 2;  // some kernels compute two tiles together
    }

    // Prepares what the products read: x as rows for the quantized formats (if a matrix has one), and v = x . At for every
    // segment and matrix, into v_. One job, because each job costs a few microseconds.
    QuantizedRows prepare(const float* x, int64_t rows, int64_t in, bool quantized, const LoraWork& lora) {
        const int64_t groups = group_count(in), row_pieces = quantized ? (rows + kRows - 1) / kRows : 0;
        QuantizedRows q{};
        if (quantized) {
            bytes_.resize(std::max<size_t>(bytes_.size(), kernels_.quantized_size(rows, in) + kLine));
            scales_.resize(std::max<size_t>(scales_.size(), rows * groups));
            sums_.resize(std::max<size_t>(sums_.size(), rows * groups));
            q = {bytes_.data() + -(uintptr_t)bytes_.data() % kLine, scales_.data(), sums_.data()};
        }
        v_.resize(std::max<size_t>(v_.size(), lora.floats));
        const int64_t grain = lora.pieces ? shrink_grain(lora.pieces) : kFewPieces;
        pool_.run(row_pieces + lora.pieces, grain, [&](int64_t begin, int64_t end, int) {
            if (begin < row_pieces)
                kernels_.quantize_rows(x, in, q, begin * kRows, std::min(std::min(end, row_pieces) * kRows, rows));
            for (int64_t piece = std::max(begin, row_pieces); piece < end; piece++) shrink(x, in, lora, piece - row_pieces);
        });
        return q;
    }

    // A forward multiplies with the same matrices in the same order every time: the matrix that followed this one last time will
    // follow again, and waiting threads can read it ahead.
    void expect_next(const Matrix& matrix) {
        follower_[last_] = matrix;
        last_ = matrix.values;
        const auto next = follower_.find(last_);
        if (next != follower_.end()) pool_.read_ahead(next->second.values, std::min(kReadAhead, value_bytes(next->second)));
    }

    // Blocks of ranks that a thread takes at a time: few enough to share evenly.
    int64_t shrink_grain(int64_t pieces) const { return std::max<int64_t>(1, pieces / (pool_.threads() * 8)); }

    // One piece of all shrinks: a block of ranks of one pair.
    void shrink(const float* x, int64_t in, const LoraWork& lora, int64_t piece) {
        const auto after = std::upper_bound(lora.shrinks.begin(), lora.shrinks.end(), piece,
                                            [](int64_t p, const Shrink& shrink) { return p < shrink.first_piece; });
        const Shrink& s = *(after - 1);
        const int64_t block = piece - s.first_piece;
        float* v = v_.data() + s.offset;
        kernels_.lora_shrink(x + s.start * in, s.rows, *s.pair, v, block, block + 1);
        if (s.scale == 1) return;
        for (int64_t row = 0; row < s.rows; row++)
            for (int64_t j = block * kRanks; j < std::min((block + 1) * kRanks, s.pair->rank); j++)
                v[row * s.pair->rank + j] *= s.scale;
    }

    // The other half of LoRA: adds v . B to outputs [begin, end) of every segment's rows, for matrix i of `count`.
    void expand(const LoraWork& lora, size_t i, size_t count, const Matrix& w, float* y, int64_t begin, int64_t end) {
        for (; i < lora.shrinks.size(); i += count) {
            const Shrink& s = lora.shrinks[i];
            if (i + count < lora.shrinks.size()) prefetch_expand(*lora.shrinks[i + count].pair, begin, end);
            if (!s.pair->rank) continue;
            kernels_.lora_expand(v_.data() + s.offset, s.rows, *s.pair, y + s.start * w.out, w.out, begin, end);
            if (s.pair->bias || s.pair->gain) add_bias_and_gain(s, y + s.start * w.out, w.out, begin, end);
        }
    }

    // Adds the bias, then multiplies the sum of base and adapter with DoRA's gain, for outputs [begin, end).
    static void add_bias_and_gain(const Shrink& s, float* y, int64_t ldy, int64_t begin, int64_t end) {
        for (int64_t row = 0; row < s.rows; row++, y += ldy) {
            if (s.pair->bias)
                for (int64_t o = begin; o < end; o++) y[o] += s.scale * s.pair->bias[o];
            if (s.pair->gain)
                for (int64_t o = begin; o < end; o++) y[o] *= s.pair->gain[o];
        }
    }

    // Adds a segment's adapter to its rows, which were looked up in a table and multiplied with scale.
    void add_lookup(const LoraPair& pair, const int32_t* ids, float scale, const LoraPlan::Segment& segment, float* out,
                    int64_t width) {
        if (!pair.rank) return;
        v_.resize(std::max<size_t>(v_.size(), pair.rank * (segment.stop - segment.start)));
        pool_.run(segment.stop - segment.start, 4, [&](int64_t begin, int64_t end, int) {
            float* v = v_.data() + begin * pair.rank;
            float* y = out + (segment.start + begin) * width;
            const int32_t* id = ids + segment.start + begin;
            kernels_.lora_lookup(pair, id, end - begin, scale * segment.scale, v);
            kernels_.lora_expand(v, end - begin, pair, y, width, 0, width);
            if (!pair.gain) return;
            for (int64_t row = 0; row < end - begin; row++)
                for (int64_t i = 0; i < width; i++) y[row * width + i] *= pair.gain[i];
        });
    }

    const Kernels& kernels_;
    ThreadPool pool_;
    std::vector<int8_t> bytes_;
    std::vector<float> scales_, v_, scratch_, products_;
    std::vector<int32_t> sums_;
    const void* last_ = nullptr;  // the values of the last matrix that was multiplied with
    std::unordered_map<const void*, Matrix> follower_;
};

}  // namespace intaglio
