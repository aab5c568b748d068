// The only file that knows Python: checks shapes and types, releases the GIL, shares the work between threads.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <mutex>
#include <stdexcept>
#include <unordered_map>

#include "adapters.h"
#include "kernels.h"
#include "sampling.h"
#include "threads.h"

namespace nb = nanobind;

namespace intaglio {
namespace {

template <class T, int N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
using Floats1 = Array<const float, 1>;
using Floats2 = Array<const float, 2>;
using Floats3 = Array<const float, 3>;
using LoraArray = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void check(bool good, const char* what) {
    if (!good) throw nb::value_error(what);
}

// A packed weight matrix; keeps the arrays it points into alive.
struct PackedMatrix {
    Matrix matrix;
    nb::object values, scales, minima;
};

int64_t value_bytes(const Matrix& w) {
    if (!is_quantized(w.format)) return w.out * w.in * (w.format == Format::f32 ? 4 : 2);
    return (w.out + kTile - 1) / kTile * group_count(w.in) * group_bytes(w.format);
}

PackedMatrix pack(int format, int64_t out, int64_t in, nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu> values,
                  std::optional<Array<const uint16_t, 3>> scales, std::optional<Array<const uint16_t, 3>> minima) {
    const int64_t tiles = (out + kTile - 1) / kTile, groups = group_count(in);
    const auto kind = (Format)format;
    check(0 <= format && format <= (int)Format::w5 && out > 0 && in > 0 && out < (1 << 30) && in < (1 << 30),
          "no such format or shape");
    Matrix matrix{kind, out, in, values.data(), nullptr, nullptr};
    check((int64_t)values.nbytes() == value_bytes(matrix), "packed values have the wrong size");
    if (is_quantized(kind)) {
        check(scales && (int64_t)scales->size() == tiles * groups * kTile, "packed scales have the wrong size");
        matrix.scales = scales->data();
    }
    if (is_quantized(kind) && kind != Format::w8 && minima) {
        check((int64_t)minima->size() == tiles * groups * kTile, "packed minima have the wrong size");
        matrix.minima = minima->data();
    }
    return {matrix, nb::cast(values), scales ? nb::cast(*scales) : nb::none(), minima ? nb::cast(*minima) : nb::none()};
}

// Reads an adapter's matrices: a list per call of `linears`, in it one (a, bt, scale) or None per weight matrix.
LoraWeights* read_adapter(const std::vector<nb::list>& calls) {
    std::vector<std::vector<LoraPart>> parts(calls.size());
    std::vector<LoraArray> arrays;  // kept until they are copied
    for (size_t call = 0; call < calls.size(); call++)
        for (nb::handle pair : calls[call]) {
            if (pair.is_none()) {
                parts[call].push_back({});
                continue;
            }
            auto [a, bt, scale] = nb::cast<std::tuple<LoraArray, LoraArray, float>>(pair);
            const bool half = a.dtype() == nb::dlpack::dtype{(uint8_t)nb::dlpack::dtype_code::Float, 16, 1};
            check(a.shape(0) == bt.shape(0), "lora: A and B differ in rank");
            check(a.dtype() == bt.dtype() && (half || a.dtype() == nb::dtype<float>()),
                  "lora: A and B must both be float32 or both half precision");
            parts[call].push_back({a.data(), bt.data(), (int64_t)a.shape(0), (int64_t)a.shape(1), (int64_t)bt.shape(1),
                                   scale, half});
            arrays.insert(arrays.end(), {a, bt});
        }
    const nb::gil_scoped_release release;
    return new LoraWeights(std::move(parts));
}

// Which rows of a step have which adapter: made once, used by every call of the step.
struct LoraPlan {
    struct Segment {
        int64_t start, stop;
        const LoraWeights* weights;
    };

    explicit LoraPlan(nb::list items) {
        for (nb::handle item : items) {
            auto [start, stop, weights] = nb::cast<std::tuple<int64_t, int64_t, nb::object>>(item);
            check(0 <= start && start <= stop, "lora: a segment ends before it starts");
            check(!weights.is_none(), "lora: a segment without an adapter");
            segments.push_back({start, stop, nb::cast<const LoraWeights*>(weights)});
            owners_.push_back(std::move(weights));
        }
    }

    LoraPlan(const LoraPlan&) = delete;

    std::vector<Segment> segments;

private:
    std::vector<nb::object> owners_;
};

// What one segment does to one matrix: where its x . At is found among the pieces of work, and in the scratch memory.
struct Shrink {
    int64_t start, rows;
    const LoraPart* part;
    int64_t first_piece, offset;
};

// All of them in one call, by segment, then by matrix.
struct LoraCall {
    std::vector<Shrink> shrinks;
    int64_t pieces = 0, floats = 0;
};

constexpr uintptr_t kLine = 64;      // bytes of a cache line
constexpr int64_t kRows = 8;        // rows that are quantized at a time
constexpr int64_t kReadAhead = 1 << 19;  // bytes: a quarter of a second-level cache, and more than there is time for
constexpr int64_t kFewPieces = 4;   // what is done before another thread has come

// What the attention calls of one step look at: made once, used by every layer of a group.
struct AttentionPlan {
    std::vector<AttentionRow> rows;
    std::vector<int32_t> blocks;
    int64_t longest = 0, highest_block = -1, tokens = 0, block_size;
    int64_t queries = 0;  // tokens of all rows

    AttentionPlan(nb::list items, int64_t block_size_) : block_size(block_size_) {
        std::vector<size_t> starts;
        for (nb::handle item : items) {
            auto [start, stop, context, first_key, table] =
                nb::cast<std::tuple<int32_t, int32_t, int32_t, int32_t, std::vector<int32_t>>>(item);
            check(0 <= start && start <= stop && stop - start <= context && 0 <= first_key && first_key <= context &&
                      (int64_t)table.size() * block_size >= context - first_key,
                  "attention: a sequence is larger than its rows or blocks");
            starts.push_back(blocks.size());
            blocks.insert(blocks.end(), table.begin(), table.end());
            for (const int32_t block : table) {
                check(block >= 0, "attention: no such block");
                highest_block = std::max<int64_t>(highest_block, block);
            }
            rows.push_back({start, stop, context, first_key, nullptr});
            queries += stop - start;
            longest = std::max<int64_t>(longest, context);
            tokens = std::max<int64_t>(tokens, stop);
        }
        for (size_t i = 0; i < rows.size(); i++) rows[i].blocks = blocks.data() + starts[i];
    }

    AttentionPlan(const AttentionPlan&) = delete;
};

// The kernels of one instruction set on a pool of threads, with scratch memory that grows as needed. One call runs at a time;
// calls from several Python threads wait for each other.
class Device {
public:
    Device(int threads, std::optional<std::string> name)
        : kernels_(find_kernels(name ? name->c_str() : nullptr)), pool_(threads) {
        if (!kernels_) throw nb::value_error("this machine has no such instruction set");
    }

    const char* name() const { return kernels_->name; }
    int threads() const { return pool_.threads(); }

    void linears(Floats2 x, const std::vector<const PackedMatrix*>& weights, const LoraPlan* plan, int64_t call,
                 const std::vector<Array<float, 2>>& outputs) {
        const int64_t rows = x.shape(0), in = x.shape(1);
        bool quantized = false;
        check(weights.size() == outputs.size(), "one output per matrix");
        for (size_t i = 0; i < weights.size(); i++) {
            check(weights[i], "linears: no matrix");
            const Matrix& w = weights[i]->matrix;
            check(w.in == in && (int64_t)outputs[i].shape(0) == rows && (int64_t)outputs[i].shape(1) == w.out,
                  "linears: shapes of x, matrix and output do not fit");
            quantized = quantized || is_quantized(w.format);
        }
        const LoraCall lora = plan ? lora_call(*plan, call, weights, rows) : LoraCall{};
        std::vector<float*> y;
        for (const auto& output : outputs) y.push_back((float*)output.data());
        const float* data = x.data();
        if (weights.empty()) return;
        const Running running(*this);
        const QuantizedRows q = prepare(data, rows, in, quantized, lora);
        int64_t tiles = 0;
        for (const PackedMatrix* w : weights) tiles += tile_count(w->matrix);
        pool_.run(tiles, grain(tiles, rows * in), [&](int64_t begin, int64_t end, int) {
            int64_t first = 0;
            for (size_t i = 0; i < weights.size(); i++) {
                const Matrix& w = weights[i]->matrix;
                const int64_t count = tile_count(w), from = std::max(begin, first), to = std::min(end, first + count);
                if (from < to) {
                    kernels_->matmul(w, data, q, rows, y[i], w.out, from - first, to - first);
#ifndef INTAGLIO_WITHOUT_LORA  // the benchmark `without-lora` builds the engine without the LoRA calls
                    expand(lora, i, weights.size(), w, y[i], (from - first) * kTile, std::min((to - first) * kTile, w.out));
#endif
                }
                first += count;
            }
        });
        expect_next(weights[0]->matrix);
    }

    void embed(const PackedMatrix& w, Array<const int32_t, 1> ids, float scale, Array<float, 2> out) {
        check(out.shape(0) == ids.shape(0) && (int64_t)out.shape(1) == w.matrix.in, "embed: shapes do not fit");
        for (size_t i = 0; i < ids.shape(0); i++)
            check(ids.data()[i] >= 0 && ids.data()[i] < w.matrix.out, "embed: a token id is outside the table");
        const Running running(*this);
        pool_.run(ids.shape(0), 4, [&](int64_t begin, int64_t end, int) {
            kernels_->embed(w.matrix, ids.data(), scale, out.data(), begin, end);
        });
    }

    void rms_norm(Floats2 x, Floats1 weight, std::optional<Floats2> residual, float eps, Array<float, 2> out) {
        const int64_t rows = x.shape(0), width = x.shape(1);
        check((int64_t)weight.shape(0) == width && (int64_t)out.shape(0) == rows && (int64_t)out.shape(1) == width,
              "rms_norm: shapes do not fit");
        check(!residual || ((int64_t)residual->shape(0) == rows && (int64_t)residual->shape(1) == width),
              "rms_norm: the residual has another shape");
        const float* other = residual ? residual->data() : nullptr;
        const Running running(*this);
        pool_.run(rows, 16, [&](int64_t begin, int64_t end, int) {
            kernels_->rms_norm(x.data(), weight.data(), other, eps, width, out.data(), begin, end);
        });
    }

    void add(Floats2 x, Floats2 y, Array<float, 2> out) {
        check(x.size() == y.size() && x.size() == out.size(), "add: shapes do not fit");
        const Running running(*this);
        pool_.run(x.size(), 1 << 14, [&](int64_t begin, int64_t end, int) {
            kernels_->add(x.data(), y.data(), out.data(), begin, end);
        });
    }

    // Norms (if given) and rotates q and k in place, then stores k and v in their slots.
    void rope_and_cache(Array<float, 3> q, Array<float, 3> k, Floats3 v, std::optional<Floats1> q_norm,
                        std::optional<Floats1> k_norm, float eps, Floats2 angles, Array<const int32_t, 1> positions,
                        Array<float, 4> keys, Array<float, 4> values, Array<const int32_t, 1> slots) {
        const int64_t tokens = q.shape(0), kv_heads = k.shape(1), dim = q.shape(2);
        const int64_t capacity = (int64_t)keys.shape(0) * keys.shape(1), width = kv_heads * dim;
        check((int64_t)k.shape(0) == tokens && (int64_t)slots.shape(0) == tokens &&
                  (int64_t)positions.shape(0) == tokens,
              "rope_and_cache: q, k, slots and positions differ in tokens");
        check((int64_t)angles.shape(1) == dim && v.size() == k.size() && (int64_t)k.shape(2) == dim,
              "rope_and_cache: head sizes differ");
        check((int64_t)keys.shape(2) == kv_heads && (int64_t)keys.shape(3) == dim && values.size() == keys.size(),
              "rope_and_cache: the cache has another head shape");
        for (int64_t i = 0; i < tokens; i++)
            check(positions.data()[i] >= 0 && positions.data()[i] < (int64_t)angles.shape(0),
                  "rope_and_cache: a position has no angles");
        check((!q_norm || (int64_t)q_norm->shape(0) == dim) && (!k_norm || (int64_t)k_norm->shape(0) == dim),
              "rope_and_cache: a norm has the wrong width");
        for (int64_t i = 0; i < tokens; i++)
            check(slots.data()[i] >= 0 && slots.data()[i] < capacity, "rope_and_cache: a slot is outside the cache");
        const float* qn = q_norm ? q_norm->data() : nullptr;
        const float* kn = k_norm ? k_norm->data() : nullptr;
        const Running running(*this);
        pool_.run(tokens, 8, [&](int64_t begin, int64_t end, int) {
            kernels_->rope(q.data(), qn, eps, angles.data(), positions.data(), (int32_t)q.shape(1), (int32_t)dim, begin,
                           end);
            kernels_->rope(k.data(), kn, eps, angles.data(), positions.data(), (int32_t)kv_heads, (int32_t)dim, begin,
                           end);
            for (int64_t token = begin; token < end; token++) {
                const int64_t at = (int64_t)slots.data()[token] * width;
                std::copy_n(k.data() + token * width, width, keys.data() + at);
                std::copy_n(v.data() + token * width, width, values.data() + at);
            }
        });
    }

    void attention(Floats3 q, Array<const float, 4> keys, Array<const float, 4> values, const AttentionPlan& plan,
                   float scale, int window, float softcap, Array<float, 3> out) {
        Attention a{};
        a.q = q.data(), a.out = out.data(), a.keys = keys.data(), a.values = values.data();
        a.heads = q.shape(1), a.dim = q.shape(2), a.block_size = keys.shape(1), a.kv_heads = keys.shape(2);
        a.window = window, a.scale = scale, a.softcap = softcap;
        check((int64_t)keys.shape(3) == a.dim && values.size() == keys.size() && out.size() == q.size() &&
                  a.kv_heads > 0 && a.heads > 0 && a.heads % a.kv_heads == 0 && window >= 0,
              "attention: shapes do not fit");
        check(plan.block_size == a.block_size && plan.highest_block < (int64_t)keys.shape(0) &&
                  plan.tokens <= (int64_t)q.shape(0),
              "attention: the plan is for another cache or batch");
        for (const AttentionRow& row : plan.rows) {
            const int32_t position = row.context - (row.stop - row.start);
            check(row.first_key <= (window ? std::max(0, position - window + 1) : 0),
                  "attention: a block that is still seen was given back");
        }
        // The more queries a piece has, the more often it uses what it loads; but every thread needs pieces.
        const int64_t shared = plan.queries * a.kv_heads / (2 * pool_.threads());
        a.tokens = std::clamp<int64_t>(shared, 1, std::max<int64_t>(1, kQueries * a.kv_heads / a.heads));
        std::vector<int64_t> first{0};  // pieces before each row's
        for (const AttentionRow& row : plan.rows)
            first.push_back(first.back() + (row.stop - row.start + a.tokens - 1) / a.tokens * a.kv_heads);
        const Running running(*this);
        const int64_t scratch = attention_scratch(a, plan.longest);
        scratch_.resize(std::max<size_t>(scratch_.size(), scratch * pool_.threads()));
        pool_.run(first.back(), 1, [&](int64_t begin, int64_t end, int thread) {
            size_t i = std::upper_bound(first.begin(), first.end(), begin) - first.begin() - 1;
            for (; i < plan.rows.size() && first[i] < end; i++) {
                const int64_t from = std::max(begin, first[i]), to = std::min(end, first[i + 1]);
                kernels_->attention(a, plan.rows[i], scratch_.data() + thread * scratch, from - first[i], to - first[i]);
            }
        });
    }

    void gelu_gate(Floats2 gate, Floats2 up, Array<float, 2> out) {
        check(gate.size() == up.size() && gate.size() == out.size(), "gelu_gate: shapes do not fit");
        const Running running(*this);
        // Pieces are multiples of 16, so that a row's elements meet the same lanes wherever the pieces are cut.
        const int64_t pieces = ((int64_t)gate.size() + 1023) / 1024;
        pool_.run(pieces, 4, [&](int64_t begin, int64_t end, int) {
            kernels_->gelu_gate(gate.data(), up.data(), out.data(), begin * 1024,
                                std::min<int64_t>(end * 1024, gate.size()));
        });
    }

    void softcap(Array<float, 2> x, float cap) {
        const Running running(*this);
        const int64_t pieces = ((int64_t)x.size() + 1023) / 1024;
        pool_.run(pieces, 16, [&](int64_t begin, int64_t end, int) {
            kernels_->softcap(x.data(), cap, begin * 1024, std::min<int64_t>(end * 1024, x.size()));
        });
    }

    // One id per row; rows of choices: temperature, top_k (0 off), top_p (1 off), uniform. Reads the first `vocab` logits.
    std::vector<int64_t> sample(Array<const float, 2> logits, int64_t vocab,
                                const std::vector<std::tuple<float, int64_t, double, double>>& choices) {
        const int64_t rows = logits.shape(0), width = logits.shape(1);
        check((int64_t)choices.size() == rows && 0 < vocab && vocab <= width, "sample: one choice per row");
        std::vector<int64_t> ids(rows);
        const Running running(*this);
        scratch_.resize(std::max<size_t>(scratch_.size(), vocab * pool_.threads()));
        pool_.run(rows, 1, [&](int64_t begin, int64_t end, int thread) {
            for (int64_t row = begin; row < end; row++) {
                const auto& [temperature, top_k, top_p, uniform] = choices[row];
                ids[row] = intaglio::sample(*kernels_, logits.data() + row * width, vocab,
                                            {temperature, top_k, top_p, uniform}, scratch_.data() + thread * vocab);
            }
        });
        return ids;
    }

private:
    static int64_t tile_count(const Matrix& w) { return (w.out + kTile - 1) / kTile; }

    // Tiles per piece: enough work to be worth the handing out, few enough to share evenly.
    int64_t grain(int64_t tiles, int64_t work_per_output) const {
        const int64_t enough = std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(1, kTile * work_per_output));
        const int64_t tiles_each = std::max<int64_t>(enough, std::min<int64_t>(64, tiles / (pool_.threads() * 8)));
        return (tiles_each + 1) / 2 * 2;  // some kernels work on two together
    }

    // What the adapters of a plan add in one call. Raises ValueError unless they fit it.
    static LoraCall lora_call(const LoraPlan& plan, int64_t call, const std::vector<const PackedMatrix*>& weights,
                              int64_t rows) {
        LoraCall lora;
        lora.shrinks.reserve(plan.segments.size() * weights.size());
        for (const LoraPlan::Segment& segment : plan.segments) {
            const auto& calls = segment.weights->calls();
            check(segment.stop <= rows, "linears: a segment is outside the rows");
            check(0 <= call && call < (int64_t)calls.size(), "linears: an adapter has no such call");
            check(calls[call].size() == weights.size(), "linears: one pair per matrix");
            for (size_t i = 0; i < weights.size(); i++) {
                const LoraPart& part = calls[call][i];
                check(!part.rank || (part.in == weights[i]->matrix.in && part.out == weights[i]->matrix.out),
                      "linears: an adapter's shapes do not fit the matrix");
                lora.shrinks.push_back({segment.start, segment.stop - segment.start, &part, lora.pieces, lora.floats});
                lora.pieces += (part.rank + kRanks - 1) / kRanks;
                lora.floats += part.rank * (segment.stop - segment.start);
            }
        }
        return lora;
    }

    // A forward multiplies with the same matrices in the same order every time: what followed this one last time will follow
    // again, and threads that wait for it can read it ahead.
    void expect_next(const Matrix& matrix) {
        follower_[last_] = matrix;
        last_ = matrix.values;
        const auto next = follower_.find(last_);
        if (next != follower_.end()) pool_.read_ahead(next->second.values, std::min(kReadAhead, value_bytes(next->second)));
    }

    // What the matrices of a call read: x as rows for the quantized formats (if there are any), and v = x . At for every segment and
    // matrix, into v_. One job, because each job costs a few microseconds.
    QuantizedRows prepare(const float* x, int64_t rows, int64_t in, bool quantized, const LoraCall& lora) {
        const int64_t groups = group_count(in), row_pieces = quantized ? (rows + kRows - 1) / kRows : 0;
        QuantizedRows q{};
        if (quantized) {
            bytes_.resize(std::max<size_t>(bytes_.size(), kernels_->quantized_size(rows, in) + kLine));
            scales_.resize(std::max<size_t>(scales_.size(), rows * groups));
            sums_.resize(std::max<size_t>(sums_.size(), rows * groups));
            q = {bytes_.data() + -(uintptr_t)bytes_.data() % kLine, scales_.data(), sums_.data()};
        }
        v_.resize(std::max<size_t>(v_.size(), lora.floats));
        const int64_t grain = lora.pieces ? shrink_grain(lora.pieces) : kFewPieces;
        pool_.run(row_pieces + lora.pieces, grain, [&](int64_t begin, int64_t end, int) {
            if (begin < row_pieces)
                kernels_->quantize_rows(x, in, q, begin * kRows, std::min(std::min(end, row_pieces) * kRows, rows));
            for (int64_t piece = std::max(begin, row_pieces); piece < end; piece++) shrink(x, in, lora, piece - row_pieces);
        });
        return q;
    }

    // Blocks of ranks that are taken at a time: few enough to share evenly.
    int64_t shrink_grain(int64_t pieces) const { return std::max<int64_t>(1, pieces / (pool_.threads() * 8)); }

    // One piece of all shrinks: a block of ranks of one part.
    void shrink(const float* x, int64_t in, const LoraCall& lora, int64_t piece) {
        const auto after = std::upper_bound(lora.shrinks.begin(), lora.shrinks.end(), piece,
                                            [](int64_t p, const Shrink& shrink) { return p < shrink.first_piece; });
        const Shrink& s = *(after - 1);
        kernels_->lora_shrink(x + s.start * in, s.rows, *s.part, v_.data() + s.offset, piece - s.first_piece,
                              piece - s.first_piece + 1);
    }

    // The other half of LoRA: adds v . B to outputs [begin, end) of every segment's rows, for matrix i of `count`.
    void expand(const LoraCall& lora, size_t i, size_t count, const Matrix& w, float* y, int64_t begin, int64_t end) {
        for (; i < lora.shrinks.size(); i += count) {
            const Shrink& s = lora.shrinks[i];
            if (i + count < lora.shrinks.size()) prefetch_expand(*lora.shrinks[i + count].part, begin, end);
            if (s.part->rank)
                kernels_->lora_expand(v_.data() + s.offset, s.rows, *s.part, y + s.start * w.out, w.out, begin, end);
        }
    }

    // While it lives the GIL is free and the pool and the scratch memory are this call's.
    struct Running {
        explicit Running(Device& device) : lock(device.mutex_) {}
        nb::gil_scoped_release release;  // first: nobody waits for the lock while holding the GIL
        std::lock_guard<std::mutex> lock;
    };

    const Kernels* kernels_;
    std::mutex mutex_;
    ThreadPool pool_;
    std::vector<int8_t> bytes_;
    std::vector<float> scales_, v_, scratch_;
    std::vector<int32_t> sums_;
    const void* last_ = nullptr;  // the values of the matrix multiplied with last
    std::unordered_map<const void*, Matrix> follower_;
};

}  // namespace
}  // namespace intaglio

NB_MODULE(_cpu, m) {
    using namespace intaglio;
    nb::class_<PackedMatrix>(m, "PackedMatrix");
    m.def("pack", &pack, nb::arg("format"), nb::arg("out"), nb::arg("in"), nb::arg("values"),
          nb::arg("scales") = nb::none(), nb::arg("minima") = nb::none());
    nb::class_<LoraWeights>(m, "LoraWeights").def(nb::new_(&read_adapter));
    nb::class_<LoraPlan>(m, "LoraPlan").def(nb::init<nb::list>());
    nb::class_<AttentionPlan>(m, "AttentionPlan").def(nb::init<nb::list, int64_t>());
    m.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const char* name : {"amx", "avx512vnni", "avx2", "neon", "plain"})
            if (find_kernels(name)) names.emplace_back(name);
        return names;
    });
    nb::class_<Device>(m, "Device")
        .def(nb::init<int, std::optional<std::string>>(), nb::arg("threads"), nb::arg("isa") = nb::none())
        .def_prop_ro("isa", &Device::name)
        .def_prop_ro("threads", &Device::threads)
        // noconvert: what is written to must be the caller's own memory, never a copy made to fit.
        .def("linears", &Device::linears, nb::arg("x"), nb::arg("weights"), nb::arg("plan").none(), nb::arg("call"),
             nb::arg("outputs").noconvert())
        .def("embed", &Device::embed, nb::arg("table"), nb::arg("ids"), nb::arg("scale"), nb::arg("out").noconvert())
        .def("rms_norm", &Device::rms_norm, nb::arg("x"), nb::arg("weight"), nb::arg("residual").none(), nb::arg("eps"),
             nb::arg("out").noconvert())
        .def("add", &Device::add, nb::arg("x"), nb::arg("y"), nb::arg("out").noconvert())
        .def("rope_and_cache", &Device::rope_and_cache, nb::arg("q").noconvert(), nb::arg("k").noconvert(), nb::arg("v"),
             nb::arg("q_norm").none(), nb::arg("k_norm").none(), nb::arg("eps"), nb::arg("angles"),
             nb::arg("positions"), nb::arg("keys").noconvert(), nb::arg("values").noconvert(), nb::arg("slots"))
        .def("attention", &Device::attention, nb::arg("q"), nb::arg("keys").noconvert(), nb::arg("values").noconvert(),
             nb::arg("plan"), nb::arg("scale"), nb::arg("window"), nb::arg("softcap"), nb::arg("out").noconvert())
        .def("gelu_gate", &Device::gelu_gate, nb::arg("gate"), nb::arg("up"), nb::arg("out").noconvert())
        .def("softcap", &Device::softcap, nb::arg("x").noconvert(), nb::arg("cap"))
        .def("sample", &Device::sample);
}
