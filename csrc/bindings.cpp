// The module: checks shapes and types, releases the GIL, shares the work between threads. With python_*.h and plans.h, which
// take apart what Python hands over, this is all that knows Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <unordered_map>

#include "adapters.h"
#include "kernels.h"
#include "plans.h"
#include "python_adapters.h"
#include "python_types.h"
#include "sampling.h"
#include "threads.h"

namespace intaglio {
namespace {

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

constexpr uintptr_t kLine = 64;      // bytes of a cache line
constexpr int64_t kRows = 8;        // rows that are quantized at a time
constexpr int64_t kReadAhead = 1 << 19;  // bytes: a quarter of a second-level cache, and more than there is time for
constexpr int64_t kFewPieces = 4;   // what is done before another thread has come

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

    // Rows of a table times scale, with what the adapters of the plan add to them.
    void embed(const PackedMatrix& w, Array<const int32_t, 1> ids, float scale, const LoraPlan* plan, int64_t call,
               Array<float, 2> out) {
        check(out.shape(0) == ids.shape(0) && (int64_t)out.shape(1) == w.matrix.in, "embed: shapes do not fit");
        for (size_t i = 0; i < ids.shape(0); i++)
            check(ids.data()[i] >= 0 && ids.data()[i] < w.matrix.out, "embed: a token id is outside the table");
        const int64_t width = w.matrix.in;
        if (plan) check_lookup(*plan, call, w.matrix, ids.shape(0));
        const Running running(*this);
        pool_.run(ids.shape(0), 4, [&](int64_t begin, int64_t end, int) {
            kernels_->embed(w.matrix, ids.data(), scale, out.data(), begin, end);
        });
        if (plan)
            for (const LoraPlan::Segment& segment : plan->segments)
                look_up(segment.weights->calls()[call].parts[0], ids.data(), scale, segment, out.data(), width);
    }

    void rms_norm(Floats2 x, Floats1 weight, float eps, const LoraPlan* plan, int64_t call, Array<float, 2> out) {
        const int64_t rows = x.shape(0), width = x.shape(1);
        check((int64_t)weight.shape(0) == width && (int64_t)out.shape(0) == rows && (int64_t)out.shape(1) == width,
              "rms_norm: shapes do not fit");
        const std::vector<NormRun> runs = norm_runs(plan, call, 0, weight.data(), rows, width);
        const Running running(*this);
        pool_.run(rows, 16, [&](int64_t begin, int64_t end, int) {
            by_runs(runs, begin, end, [&](int64_t from, int64_t to, const float* norm) {
                kernels_->rms_norm(x.data(), norm, nullptr, eps, width, out.data(), from, to);
            });
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
        const std::vector<NormRun> posts = norm_runs(plan, call, 0, post ? post->data() : nullptr, rows, width);
        const std::vector<NormRun> norms = norm_runs(plan, call, 1, weight.data(), rows, width);
        const Running running(*this);
        const float* projected = multiply_aside(y, {&matrix}, lora)[0];
        pool_.run(rows, 16, [&](int64_t begin, int64_t end, int) {
            by_runs(posts, begin, end, [&](int64_t from, int64_t to, const float* norm) {
                if (norm)
                    kernels_->rms_norm(projected, norm, x.data(), eps, width, sum.data(), from, to);
                else
                    kernels_->add(x.data(), projected, sum.data(), from * width, to * width);
            });
            by_runs(norms, begin, end, [&](int64_t from, int64_t to, const float* norm) {
                kernels_->rms_norm(sum.data(), norm, nullptr, eps, width, normed.data(), from, to);
            });
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
        const std::vector<NormRun> q_norms = norm_runs(lora_plan, call, 0, q_norm ? q_norm->data() : nullptr, tokens, dim);
        const std::vector<NormRun> k_norms = norm_runs(lora_plan, call, 1, k_norm ? k_norm->data() : nullptr, tokens, dim);
        const int64_t layer_size = keys.shape(1) * keys.shape(2) * keys.shape(3) * dim;
        float* const layer_keys = keys.data() + layer * layer_size;
        float* const layer_values = values.data() + layer * layer_size;
        const Running running(*this);
        const std::vector<float*> y = multiply_aside(x, weights, lora);
        rope_and_cache(y, a, q_norms, k_norms, eps, angles.data(), plan, layer_keys, layer_values);
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

    static void check_lookup(const LoraPlan& plan, int64_t call, const Matrix& table, int64_t rows) {
        for (const LoraPlan::Segment& segment : plan.segments) {
            const std::vector<LoraPart>& parts = call_of(segment, call, rows).parts;
            check(parts.size() == 1, "embed: one pair per table");
            const LoraPart& part = parts[0];
            check(!part.rank || (part.in == table.out && part.out == table.in && !part.bias),
                  "embed: an adapter's shapes do not fit the table");
        }
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
    void rope_and_cache(const std::vector<float*>& qkv, const Attention& a, const std::vector<NormRun>& q_norms,
                        const std::vector<NormRun>& k_norms, float eps, const float* angles, const AttentionPlan& plan,
                        float* keys, float* values) {
        const auto [heads, kv_heads, dim] = std::tuple((int32_t)a.heads, (int32_t)a.kv_heads, (int32_t)a.dim);
        const int64_t width = a.kv_heads * a.dim;
        pool_.run(plan.tokens(), 8, [&](int64_t begin, int64_t end, int) {
            by_runs(q_norms, begin, end, [&](int64_t from, int64_t to, const float* norm) {
                kernels_->rope(qkv[0], norm, eps, angles, plan.positions.data(), heads, dim, from, to);
            });
            by_runs(k_norms, begin, end, [&](int64_t from, int64_t to, const float* norm) {
                kernels_->rope(qkv[1], norm, eps, angles, plan.positions.data(), kv_heads, dim, from, to);
            });
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
            const std::vector<LoraPart>& parts = call_of(segment, call, rows).parts;
            check(parts.size() == weights.size(), "linears: one pair per matrix");
            for (size_t i = 0; i < weights.size(); i++) {
                const LoraPart& part = parts[i];
                check(!part.rank || (part.in == weights[i]->matrix.in && part.out == weights[i]->matrix.out),
                      "linears: an adapter's shapes do not fit the matrix");
                lora.shrinks.push_back(
                    {segment.start, segment.stop - segment.start, &part, lora.pieces, lora.floats, segment.scale});
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
        const int64_t block = piece - s.first_piece;
        float* v = v_.data() + s.offset;
        kernels_->lora_shrink(x + s.start * in, s.rows, *s.part, v, block, block + 1);
        if (s.scale == 1) return;
        for (int64_t row = 0; row < s.rows; row++)
            for (int64_t j = block * kRanks; j < std::min((block + 1) * kRanks, s.part->rank); j++)
                v[row * s.part->rank + j] *= s.scale;
    }

    // What an adapter adds to the rows of its segment that were looked up in a table, scale being the table's.
    void look_up(const LoraPart& part, const int32_t* ids, float scale, const LoraPlan::Segment& segment, float* out,
                 int64_t width) {
        if (!part.rank) return;
        v_.resize(std::max<size_t>(v_.size(), part.rank * (segment.stop - segment.start)));
        pool_.run(segment.stop - segment.start, 4, [&](int64_t begin, int64_t end, int) {
            float* v = v_.data() + begin * part.rank;
            float* y = out + (segment.start + begin) * width;
            const int32_t* id = ids + segment.start + begin;
            kernels_->lora_lookup(part, id, end - begin, scale * segment.scale, v);
            kernels_->lora_expand(v, end - begin, part, y, width, 0, width);
            if (!part.gain) return;
            for (int64_t row = 0; row < end - begin; row++)
                for (int64_t i = 0; i < width; i++) y[row * width + i] *= part.gain[i];
        });
    }

    // The other half of LoRA: adds v . B to outputs [begin, end) of every segment's rows, for matrix i of `count`.
    void expand(const LoraCall& lora, size_t i, size_t count, const Matrix& w, float* y, int64_t begin, int64_t end) {
        for (; i < lora.shrinks.size(); i += count) {
            const Shrink& s = lora.shrinks[i];
            if (i + count < lora.shrinks.size()) prefetch_expand(*lora.shrinks[i + count].part, begin, end);
            if (!s.part->rank) continue;
            kernels_->lora_expand(v_.data() + s.offset, s.rows, *s.part, y + s.start * w.out, w.out, begin, end);
            if (s.part->bias || s.part->gain) finish(s, y + s.start * w.out, w.out, begin, end);
        }
    }

    // A bias is added, and the sum of base and adapter multiplied with DoRA's gain, for outputs [begin, end).
    static void finish(const Shrink& s, float* y, int64_t ldy, int64_t begin, int64_t end) {
        for (int64_t row = 0; row < s.rows; row++, y += ldy) {
            if (s.part->bias)
                for (int64_t o = begin; o < end; o++) y[o] += s.scale * s.part->bias[o];
            if (s.part->gain)
                for (int64_t o = begin; o < end; o++) y[o] *= s.part->gain[o];
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
        .def(nb::new_(&pack_adapter), nb::arg("calls"), nb::arg("spare") = nb::none())
        .def_static("attach", &attach_adapter, nb::arg("shapes"), nb::arg("values"), nb::arg("vectors"),
                    nb::arg("spare") = nb::none())
        .def_prop_ro("size", &LoraWeights::bytes)
        .def_prop_ro("shapes", &adapter_shapes)
        .def_prop_ro("values", [](const LoraWeights& weights) {
            return nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>(weights.values(), {(size_t)weights.bytes()}, nb::find(weights));
        })
        .def_prop_ro("vectors", [](const LoraWeights& weights) {
            return nb::ndarray<nb::numpy, const float, nb::ndim<1>>(weights.vectors(), {(size_t)weights.floats()}, nb::find(weights));
        });
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
        .def("embed", &Device::embed, nb::arg("table"), nb::arg("ids"), nb::arg("scale"), nb::arg("plan").none(),
             nb::arg("call"), nb::arg("out").noconvert())
        .def("gated_linear", &Device::gated_linear, nb::arg("x"), nb::arg("gate"), nb::arg("up"), nb::arg("plan").none(),
             nb::arg("call"), nb::arg("out").noconvert())
        .def("rms_norm", &Device::rms_norm, nb::arg("x"), nb::arg("weight"), nb::arg("eps"), nb::arg("plan").none(),
             nb::arg("call"), nb::arg("out").noconvert())
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
