// The only file that knows Python: checks shapes and types, releases the GIL, shares the work between threads.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <memory>
#include <mutex>
#include <numeric>
#include <stdexcept>

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

void check(bool good, const char* what) {
    if (!good) throw nb::value_error(what);
}

// A packed weight matrix; keeps the arrays it points into alive.
struct PackedMatrix {
    Matrix matrix;
    nb::object values, scales, minima;
};

PackedMatrix pack(int format, int64_t out, int64_t in, nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu> values,
                  std::optional<Array<const uint16_t, 3>> scales, std::optional<Array<const uint16_t, 3>> minima) {
    const int64_t tiles = (out + kTile - 1) / kTile, groups = group_count(in);
    const auto kind = (Format)format;
    check(0 <= format && format <= (int)Format::w4 && out > 0 && in > 0 && out < (1 << 30) && in < (1 << 30),
          "no such format or shape");
    const int64_t needed = kind == Format::f32    ? out * in * 4
                           : kind == Format::bf16 ? out * in * 2
                           : kind == Format::w8   ? tiles * groups * 512
                                                  : tiles * groups * 256;
    check((int64_t)values.nbytes() == needed, "packed values have the wrong size");
    Matrix matrix{kind, out, in, values.data(), nullptr, nullptr};
    if (kind == Format::w8 || kind == Format::w4) {
        check(scales && (int64_t)scales->size() == tiles * groups * kTile, "packed scales have the wrong size");
        matrix.scales = scales->data();
    }
    if (kind == Format::w4) {
        check(minima && (int64_t)minima->size() == tiles * groups * kTile, "packed minima have the wrong size");
        matrix.minima = minima->data();
    }
    return {matrix, nb::cast(values), scales ? nb::cast(*scales) : nb::none(), minima ? nb::cast(*minima) : nb::none()};
}

// One adapter's matrices for one call of `linears`, one part per weight matrix: A [rank, in] and transposed B [rank, out];
// rank 0 where the adapter leaves the matrix alone. Keeps the arrays alive.
struct LoraPart {
    const float *a, *bt;
    int64_t rank, in, out;
};

class LoraGroup {
public:
    explicit LoraGroup(nb::list pairs) {
        for (nb::handle pair : pairs) {
            if (pair.is_none()) {
                parts.push_back({nullptr, nullptr, 0, 0, 0});
                continue;
            }
            auto [a, bt] = nb::cast<std::tuple<Floats2, Floats2>>(pair);
            check(a.shape(0) == bt.shape(0), "lora: A and B differ in rank");
            parts.push_back({a.data(), bt.data(), (int64_t)a.shape(0), (int64_t)a.shape(1), (int64_t)bt.shape(1)});
            owners_.push_back(nb::cast(a));
            owners_.push_back(nb::cast(bt));
        }
    }

    std::vector<LoraPart> parts;

private:
    std::vector<nb::object> owners_;
};

struct Segment {
    int64_t start, stop;
    const LoraGroup* group;
};

// What the attention calls of one step look at: made once, used by every layer of a group.
struct AttentionPlan {
    std::vector<AttentionRow> rows;
    std::vector<int32_t> blocks;
    std::vector<int64_t> first_token{0};  // tokens before each row's
    int64_t longest = 0, highest_block = -1, tokens = 0, block_size;

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
            first_token.push_back(first_token.back() + stop - start);
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

    void linears(Floats2 x, const std::vector<const PackedMatrix*>& weights, nb::list segments,
                 const std::vector<Array<float, 2>>& outputs) {
        const int64_t rows = x.shape(0), in = x.shape(1);
        bool quantized = false;
        check(weights.size() == outputs.size(), "one output per matrix");
        for (size_t i = 0; i < weights.size(); i++) {
            const Matrix& w = weights[i]->matrix;
            check(w.in == in && (int64_t)outputs[i].shape(0) == rows && (int64_t)outputs[i].shape(1) == w.out,
                  "linears: shapes of x, matrix and output do not fit");
            quantized = quantized || w.format == Format::w8 || w.format == Format::w4;
        }
        const std::vector<Segment> parts = read_segments(segments, weights, rows);
        std::vector<float*> y;
        for (const auto& output : outputs) y.push_back((float*)output.data());
        const float* data = x.data();
        const Running running(*this);
        QuantizedRows q = quantize(data, rows, in, quantized);
#ifndef INTAGLIO_WITHOUT_LORA  // the benchmark `without-lora` builds the engine without the LoRA calls
        shrink(data, in, parts);
#endif
        int64_t tiles = 0;
        for (const PackedMatrix* w : weights) tiles += tile_count(w->matrix);
        pool_.run(tiles, grain(tiles, rows * in), [&](int64_t begin, int64_t end, int) {
            int64_t first = 0;
            for (size_t i = 0; i < weights.size(); i++) {
                const Matrix& w = weights[i]->matrix;
                const int64_t count = tile_count(w), from = std::max(begin, first), to = std::min(end, first + count);
                if (from < to) {
                    kernels_->matmul(w, data, q, rows, y[i], w.out, from - first, to - first);
#ifndef INTAGLIO_WITHOUT_LORA
                    expand(parts, i, w, y[i], (from - first) * kTile, std::min((to - first) * kTile, w.out));
#endif
                }
                first += count;
            }
        });
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
                  a.kv_heads > 0 && a.heads % a.kv_heads == 0,
              "attention: shapes do not fit");
        check(plan.block_size == a.block_size && plan.highest_block < (int64_t)keys.shape(0) &&
                  plan.tokens <= (int64_t)q.shape(0),
              "attention: the plan is for another cache or batch");
        for (const AttentionRow& row : plan.rows) {
            const int32_t position = row.context - (row.stop - row.start);
            check(row.first_key <= (window ? std::max(0, position - window + 1) : 0),
                  "attention: a block that is still seen was given back");
        }
        const Running running(*this);
        const int64_t scratch = plan.longest * (a.heads / a.kv_heads);
        scratch_.resize(std::max<size_t>(scratch_.size(), scratch * pool_.threads()));
        const std::vector<int64_t>& first = plan.first_token;
        pool_.run(first.back() * a.kv_heads, 2, [&](int64_t begin, int64_t end, int thread) {
            size_t i = std::upper_bound(first.begin(), first.end(), begin / a.kv_heads) - first.begin() - 1;
            for (; i < plan.rows.size() && first[i] * a.kv_heads < end; i++) {
                const int64_t from = std::max(begin, first[i] * a.kv_heads), to = std::min(end, first[i + 1] * a.kv_heads);
                kernels_->attention(a, plan.rows[i], scratch_.data() + thread * scratch, from - first[i] * a.kv_heads,
                                    to - first[i] * a.kv_heads);
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
        return std::max<int64_t>(enough, std::min<int64_t>(64, tiles / (pool_.threads() * 8)));
    }

    std::vector<Segment> read_segments(const nb::list& segments, const std::vector<const PackedMatrix*>& weights,
                                       int64_t rows) {
        std::vector<Segment> result;
        for (nb::handle item : segments) {
            auto [start, stop, group] = nb::cast<std::tuple<int64_t, int64_t, const LoraGroup*>>(item);
            check(0 <= start && start <= stop && stop <= rows, "linears: a segment is outside the rows");
            check(group && group->parts.size() == weights.size(), "linears: one pair per matrix");
            for (size_t i = 0; i < weights.size(); i++)
                check(!group->parts[i].rank || (group->parts[i].in == weights[i]->matrix.in &&
                                                group->parts[i].out == weights[i]->matrix.out),
                      "linears: an adapter's shapes do not fit the matrix");
            result.push_back({start, stop, group});
        }
        return result;
    }

    QuantizedRows quantize(const float* x, int64_t rows, int64_t in, bool wanted) {
        if (!wanted) return {};
        const int64_t groups = group_count(in);
        bytes_.resize(std::max<size_t>(bytes_.size(), rows * groups * kGroup));
        scales_.resize(std::max<size_t>(scales_.size(), rows * groups));
        sums_.resize(std::max<size_t>(sums_.size(), rows * groups));
        pool_.run(rows, 8, [&](int64_t begin, int64_t end, int) {
            kernels_->quantize_rows(x, in, bytes_.data(), scales_.data(), sums_.data(), begin, end);
        });
        return {bytes_.data(), scales_.data(), sums_.data()};
    }

    // v = x . At for every segment and matrix, into v_, in the order of segments and parts.
    void shrink(const float* x, int64_t in, const std::vector<Segment>& segments) {
        if (segments.empty()) return;
        offsets_.clear();
        std::vector<int64_t> first_rank{0};
        std::vector<std::pair<size_t, size_t>> which;
        int64_t size = 0;
        for (size_t s = 0; s < segments.size(); s++)
            for (size_t i = 0; i < segments[s].group->parts.size(); i++) {
                offsets_.push_back(size);
                size += segments[s].group->parts[i].rank * (segments[s].stop - segments[s].start);
                first_rank.push_back(first_rank.back() + segments[s].group->parts[i].rank);
                which.emplace_back(s, i);
            }
        v_.resize(std::max<size_t>(v_.size(), size));
        pool_.run(first_rank.back(), 4, [&](int64_t begin, int64_t end, int) {
            size_t k = std::upper_bound(first_rank.begin(), first_rank.end(), begin) - first_rank.begin() - 1;
            for (; k < which.size() && first_rank[k] < end; k++) {
                const Segment& segment = segments[which[k].first];
                const LoraPart& part = segment.group->parts[which[k].second];
                kernels_->lora_shrink(x + segment.start * in, in, segment.stop - segment.start, part.a,
                                      v_.data() + offsets_[k], part.rank,
                                      std::max(begin, first_rank[k]) - first_rank[k],
                                      std::min(end, first_rank[k + 1]) - first_rank[k]);
            }
        });
    }

    void expand(const std::vector<Segment>& segments, size_t i, const Matrix& w, float* y, int64_t begin, int64_t end) {
        for (size_t s = 0; s < segments.size(); s++) {
            const Segment& segment = segments[s];
            const LoraPart& part = segment.group->parts[i];
            if (part.rank)
                kernels_->lora_expand(v_.data() + offsets_[s * segment.group->parts.size() + i], part.rank,
                                      segment.stop - segment.start, part.bt, w.out, y + segment.start * w.out, w.out,
                                      begin, end);
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
    std::vector<int64_t> offsets_;
};

}  // namespace
}  // namespace intaglio

NB_MODULE(_cpu, m) {
    using namespace intaglio;
    nb::class_<PackedMatrix>(m, "PackedMatrix");
    m.def("pack", &pack, nb::arg("format"), nb::arg("out"), nb::arg("in"), nb::arg("values"),
          nb::arg("scales") = nb::none(), nb::arg("minima") = nb::none());
    nb::class_<LoraGroup>(m, "LoraGroup").def(nb::init<nb::list>());
    nb::class_<AttentionPlan>(m, "AttentionPlan").def(nb::init<nb::list, int64_t>());
    m.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const char* name : {"avx512vnni", "avx2", "neon", "plain"})
            if (find_kernels(name)) names.emplace_back(name);
        return names;
    });
    nb::class_<Device>(m, "Device")
        .def(nb::init<int, std::optional<std::string>>(), nb::arg("threads"), nb::arg("isa") = nb::none())
        .def_prop_ro("isa", &Device::name)
        .def_prop_ro("threads", &Device::threads)
        // noconvert: what is written to must be the caller's own memory, never a copy made to fit.
        .def("linears", &Device::linears, nb::arg("x"), nb::arg("weights"), nb::arg("segments"),
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
