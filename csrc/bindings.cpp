// The only file that knows Python: checks shapes and types, releases the GIL, shares the work between threads.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
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

// Reads an adapter's matrices: a list per call of `linears`, in it one (a, bt, scales) or None per weight matrix.
LoraWeights* read_adapter(const std::vector<nb::list>& calls, std::shared_ptr<Pages> spare) {
    std::vector<std::vector<LoraPart>> parts(calls.size());
    std::vector<LoraArray> arrays;  // kept until they are copied, as the scales are
    std::vector<Floats1> scales;
    for (size_t call = 0; call < calls.size(); call++)
        for (nb::handle pair : calls[call]) {
            if (pair.is_none()) {
                parts[call].push_back({});
                continue;
            }
            auto [a, bt, scale] = nb::cast<std::tuple<LoraArray, LoraArray, Floats1>>(pair);
            const auto code = (nb::dlpack::dtype_code)a.dtype().code;
            const int64_t size = a.itemsize();
            check(a.shape(0) == bt.shape(0) && a.shape(0) == scale.shape(0), "lora: A, B and scales differ in rank");
            check(a.dtype() == bt.dtype() && (size == 1 ? code == nb::dlpack::dtype_code::Int
                                                        : code == nb::dlpack::dtype_code::Float && size <= 4),
                  "lora: A and B must both be float32, half precision or int8");
            parts[call].push_back({a.data(), bt.data(), (int64_t)a.shape(0), (int64_t)a.shape(1), (int64_t)bt.shape(1),
                                   scale.data(), size});
            scales.push_back(scale);
            arrays.insert(arrays.end(), {a, bt});
        }
    const nb::gil_scoped_release release;
    return new LoraWeights(std::move(parts), std::move(spare));
}

// Memory for the next adapter, got while nobody waits for it.
std::shared_ptr<Pages> touched_pages(int64_t size) {
    check(0 < size && size < (int64_t{1} << 40), "pages: no such size");
    const nb::gil_scoped_release release;
    auto pages = std::make_shared<Pages>(size);
    pages->touch();
    return pages;
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

    // y = x . Wt for each matrix, plus what the adapters of the plan add.
    void linears(Floats2 x, const std::vector<const PackedMatrix*>& weights, const LoraPlan* plan, int64_t call,
                 const std::vector<Array<float, 2>>& outputs) {
        check(weights.size() == outputs.size(), "one output per matrix");
        std::vector<float*> y;
        for (size_t i = 0; i < weights.size(); i++) {
            check(weights[i] && (int64_t)outputs[i].shape(0) == (int64_t)x.shape(0) &&
                      (int64_t)outputs[i].shape(1) == weights[i]->matrix.out,
                  "linears: shapes of x, matrix and output do not fit");
            y.push_back((float*)outputs[i].data());
        }
        const LoraCall lora = check_linears(x, weights, plan, call);
        if (weights.empty()) return;
        const Running running(*this);
        multiply(x, weights, lora, y);
    }

    // gelu(x . gatet) * (x . upt), with what the adapters of the plan add to both products.
    void gated_linear(Floats2 x, const PackedMatrix& gate, const PackedMatrix& up, const LoraPlan* plan, int64_t call,
                      Array<float, 2> out) {
        const int64_t rows = x.shape(0), width = gate.matrix.out;
        check(up.matrix.out == width && (int64_t)out.shape(0) == rows && (int64_t)out.shape(1) == width,
              "gated_linear: shapes of x, matrices and output do not fit");
        const std::vector<const PackedMatrix*> weights{&gate, &up};
        const LoraCall lora = check_linears(x, weights, plan, call);
        const Running running(*this);
        const std::vector<float*> y = multiply_aside(x, weights, lora);
        gelu(y[0], y[1], out.data(), rows * width);
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

    void rms_norm(Floats2 x, Floats1 weight, float eps, Array<float, 2> out) {
        const int64_t rows = x.shape(0), width = x.shape(1);
        check((int64_t)weight.shape(0) == width && (int64_t)out.shape(0) == rows && (int64_t)out.shape(1) == width,
              "rms_norm: shapes do not fit");
        const Running running(*this);
        pool_.run(rows, 16, [&](int64_t begin, int64_t end, int) {
            kernels_->rms_norm(x.data(), weight.data(), nullptr, eps, width, out.data(), begin, end);
        });
    }

    // sum = x + rms_norm(p, post), or x + p, where p is y . Wt plus what the adapters of the plan add; normed =
    // rms_norm(sum, weight).
    void add_projection(Floats2 x, Floats2 y, const PackedMatrix& matrix, const LoraPlan* plan, int64_t call,
                        std::optional<Floats1> post, Floats1 weight, float eps, Array<float, 2> sum,
                        Array<float, 2> normed) {
        const int64_t rows = x.shape(0), width = x.shape(1);
        const auto fits = [&](const auto& array) {
            return (int64_t)array.shape(0) == rows && (int64_t)array.shape(1) == width;
        };
        check((int64_t)y.shape(0) == rows && matrix.matrix.out == width && fits(sum) && fits(normed) &&
                  (int64_t)weight.shape(0) == width && (!post || (int64_t)post->shape(0) == width),
              "add_projection: shapes do not fit");
        const LoraCall lora = check_linears(y, {&matrix}, plan, call);
        const float* post_weight = post ? post->data() : nullptr;
        const Running running(*this);
        const float* projected = multiply_aside(y, {&matrix}, lora)[0];
        pool_.run(rows, 16, [&](int64_t begin, int64_t end, int) {
            if (post_weight)
                kernels_->rms_norm(projected, post_weight, x.data(), eps, width, sum.data(), begin, end);
            else
                kernels_->add(x.data(), projected, sum.data(), begin * width, end * width);
            kernels_->rms_norm(sum.data(), weight.data(), nullptr, eps, width, normed.data(), begin, end);
        });
    }

    // The attention half of a block: q, k and v of x, heads normed (if asked) and rotated, keys and values stored in one layer
    // of the cache, and every token's look at its own sequence there.
    void self_attention(Floats2 x, const PackedMatrix& q, const PackedMatrix& k, const PackedMatrix& v,
                        const LoraPlan* lora_plan, int64_t call, std::optional<Floats1> q_norm,
                        std::optional<Floats1> k_norm, float eps, Floats2 angles, Array<float, 5> keys,
                        Array<float, 5> values, int64_t layer, const AttentionPlan& plan, float scale, int window,
                        float softcap, Array<float, 2> out) {
        const int64_t tokens = x.shape(0), dim = keys.shape(4);
        Attention a{};
        a.block_size = keys.shape(2), a.kv_heads = keys.shape(3), a.dim = dim, a.window = window, a.scale = scale;
        a.softcap = softcap;
        check(dim > 0 && dim % 2 == 0 && a.kv_heads > 0 && values.size() == keys.size() && 0 <= layer &&
                  layer < (int64_t)keys.shape(0) && window >= 0,
              "self_attention: the cache has another shape");
        a.heads = q.matrix.out / dim;
        check(a.heads > 0 && a.heads * dim == q.matrix.out && k.matrix.out == a.kv_heads * dim &&
                  v.matrix.out == k.matrix.out && a.heads % a.kv_heads == 0 && (int64_t)out.shape(0) == tokens &&
                  (int64_t)out.shape(1) == q.matrix.out,
              "self_attention: matrices, cache and output do not fit");
        check(plan.tokens() == tokens && plan.block_size == a.block_size && plan.highest_block < (int64_t)keys.shape(1),
              "self_attention: the plan is for another cache or batch");
        check((int64_t)angles.shape(1) == dim && (tokens == 0 || plan.highest_position < (int64_t)angles.shape(0)),
              "self_attention: a position has no angles");
        check((!q_norm || (int64_t)q_norm->shape(0) == dim) && (!k_norm || (int64_t)k_norm->shape(0) == dim),
              "self_attention: a norm has the wrong width");
        for (const AttentionRow& row : plan.rows) {
            const int32_t position = row.context - (row.stop - row.start);
            check(row.first_key <= (window ? std::max(0, position - window + 1) : 0),
                  "self_attention: a block that is still seen was given back");
        }
        const std::vector<const PackedMatrix*> weights{&q, &k, &v};
        const LoraCall lora = check_linears(x, weights, lora_plan, call);
        const int64_t layer_size = keys.shape(1) * keys.shape(2) * keys.shape(3) * dim;
        float* const layer_keys = keys.data() + layer * layer_size;
        float* const layer_values = values.data() + layer * layer_size;
        const Running running(*this);
        const std::vector<float*> y = multiply_aside(x, weights, lora);
        rope_and_cache(y, a, q_norm ? q_norm->data() : nullptr, k_norm ? k_norm->data() : nullptr, eps, angles.data(),
                       plan, layer_keys, layer_values);
        a.q = y[0], a.out = out.data(), a.keys = layer_keys, a.values = layer_values;
        attention(a, plan);
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

    // Shapes of x and the matrices, and what the adapters of the plan do in this call. Raises ValueError.
    static LoraCall check_linears(const Floats2& x, const std::vector<const PackedMatrix*>& weights, const LoraPlan* plan,
                                  int64_t call) {
        for (const PackedMatrix* w : weights)
            check(w->matrix.in == (int64_t)x.shape(1), "linears: shapes of x, matrix and output do not fit");
        return plan ? lora_call(*plan, call, weights, x.shape(0)) : LoraCall{};
    }

    void multiply(const Floats2& x, const std::vector<const PackedMatrix*>& weights, const LoraCall& lora,
                  const std::vector<float*>& y) {
        const int64_t rows = x.shape(0), in = x.shape(1);
        const float* data = x.data();
        bool quantized = false;
        int64_t tiles = 0;
        for (const PackedMatrix* w : weights) {
            quantized = quantized || is_quantized(w->matrix.format);
            tiles += tile_count(w->matrix);
        }
        const QuantizedRows q = prepare(data, rows, in, quantized, lora);
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

    // The products in scratch memory, which the next call overwrites.
    std::vector<float*> multiply_aside(const Floats2& x, const std::vector<const PackedMatrix*>& weights,
                                       const LoraCall& lora) {
        const int64_t rows = x.shape(0);
        int64_t size = 0;
        for (const PackedMatrix* w : weights) size += rows * w->matrix.out;
        products_.resize(std::max<size_t>(products_.size(), size));
        std::vector<float*> y;
        float* at = products_.data();
        for (const PackedMatrix* w : weights) {
            y.push_back(at);
            at += rows * w->matrix.out;
        }
        multiply(x, weights, lora, y);
        return y;
    }

    // Norms (if given) and rotates q and k in place, then stores k and v in their slots. qkv: [tokens, heads, dim] each.
    void rope_and_cache(const std::vector<float*>& qkv, const Attention& a, const float* q_norm, const float* k_norm,
                        float eps, const float* angles, const AttentionPlan& plan, float* keys, float* values) {
        const auto [heads, kv_heads, dim] = std::tuple((int32_t)a.heads, (int32_t)a.kv_heads, (int32_t)a.dim);
        const int64_t width = a.kv_heads * a.dim;
        pool_.run(plan.tokens(), 8, [&](int64_t begin, int64_t end, int) {
            kernels_->rope(qkv[0], q_norm, eps, angles, plan.positions.data(), heads, dim, begin, end);
            kernels_->rope(qkv[1], k_norm, eps, angles, plan.positions.data(), kv_heads, dim, begin, end);
            for (int64_t token = begin; token < end; token++) {
                const int64_t at = (int64_t)plan.slots[token] * width;
                std::copy_n(qkv[1] + token * width, width, keys + at);
                std::copy_n(qkv[2] + token * width, width, values + at);
            }
        });
    }

    void attention(Attention& a, const AttentionPlan& plan) {
        // The more queries a piece has, the more often it uses what it loads; but every thread needs pieces.
        const int64_t shared = plan.tokens() * a.kv_heads / (2 * pool_.threads());
        a.tokens = std::clamp<int64_t>(shared, 1, std::max<int64_t>(1, kQueries * a.kv_heads / a.heads));
        std::vector<int64_t> first{0};  // pieces before each row's
        for (const AttentionRow& row : plan.rows)
            first.push_back(first.back() + (row.stop - row.start + a.tokens - 1) / a.tokens * a.kv_heads);
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

    // gelu(gate) * up.
    void gelu(const float* gate, const float* up, float* out, int64_t size) {
        // Pieces are multiples of 16, so that a row's elements meet the same lanes wherever the pieces are cut.
        pool_.run((size + 1023) / 1024, 4, [&](int64_t begin, int64_t end, int) {
            kernels_->gelu_gate(gate, up, out, begin * 1024, std::min(end * 1024, size));
        });
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
    std::vector<float> scales_, v_, scratch_, products_;
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
    nb::class_<Pages>(m, "Pages").def(nb::new_(&touched_pages), nb::arg("size"));
    nb::class_<LoraWeights>(m, "LoraWeights")
        .def(nb::new_(&read_adapter), nb::arg("calls"), nb::arg("spare") = nb::none())
        .def_prop_ro("size", &LoraWeights::bytes);
    nb::class_<LoraPlan>(m, "LoraPlan").def(nb::init<nb::list>());
    nb::class_<AttentionPlan>(m, "AttentionPlan")
        .def(nb::init<nb::list, int64_t>())
        .def_ro("highest_position", &AttentionPlan::highest_position);
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
        .def("gated_linear", &Device::gated_linear, nb::arg("x"), nb::arg("gate"), nb::arg("up"), nb::arg("plan").none(),
             nb::arg("call"), nb::arg("out").noconvert())
        .def("rms_norm", &Device::rms_norm, nb::arg("x"), nb::arg("weight"), nb::arg("eps"), nb::arg("out").noconvert())
        .def("add_projection", &Device::add_projection, nb::arg("x"), nb::arg("y"), nb::arg("matrix"),
             nb::arg("plan").none(), nb::arg("call"), nb::arg("post").none(), nb::arg("weight"), nb::arg("eps"),
             nb::arg("sum").noconvert(), nb::arg("normed").noconvert())
        .def("self_attention", &Device::self_attention, nb::arg("x"), nb::arg("q"), nb::arg("k"), nb::arg("v"),
             nb::arg("lora").none(), nb::arg("call"), nb::arg("q_norm").none(), nb::arg("k_norm").none(),
             nb::arg("eps"), nb::arg("angles"), nb::arg("keys").noconvert(), nb::arg("values").noconvert(),
             nb::arg("layer"), nb::arg("plan"), nb::arg("scale"), nb::arg("window"), nb::arg("softcap"),
             nb::arg("out").noconvert())
        .def("softcap", &Device::softcap, nb::arg("x").noconvert(), nb::arg("cap"))
        .def("sample", &Device::sample);
}
