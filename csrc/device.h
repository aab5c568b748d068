// What Python calls: each call checks its arguments, frees the GIL and has the work done (jobs.h). Raises ValueError where
// something does not fit.
#pragma once

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "jobs.h"
#include "kernels.h"
#include "lora_call.h"
#include "plans.h"
#include "python_matrix.h"
#include "python_types.h"

namespace intaglio {

// The kernels of one instruction set, found by name or the best there is. One call runs at a time; calls from several Python
// threads wait for each other.
class Device {
public:
    Device(int threads, const std::optional<std::string>& name) : jobs_(find(name), threads) {}

    const char* name() const { return jobs_.name(); }
    int threads() const { return jobs_.threads(); }

    // y = x . Wt for each matrix, plus what the adapters of the plan add.
    void linears(Floats2 x, const std::vector<const PackedMatrix*>& weights, const LoraPlan* plan, int64_t call,
                 const std::vector<Array<float, 2>>& outputs) {
        check(weights.size() == outputs.size(), "one output per matrix");
        std::vector<Product> products;
        products.reserve(weights.size());
        for (size_t i = 0; i < weights.size(); i++) {
            check(weights[i] && fits(outputs[i], x.shape(0), weights[i]->matrix.out),
                  "linears: shapes of x, matrix and output do not fit");
            products.push_back({weights[i]->matrix, (float*)outputs[i].data()});
        }
        const LoraCall lora = check_linears(x, products, plan, call);
        if (products.empty()) return;
        const Running running(*this);
        jobs_.multiply(x.data(), x.shape(0), products, lora);
    }

    // gelu(x . gatet) * (x . upt), with what the adapters of the plan add to both products.
    void gated_linear(Floats2 x, const PackedMatrix& gate, const PackedMatrix& up, const LoraPlan* plan, int64_t call,
                      Array<float, 2> out) {
        const int64_t rows = x.shape(0), width = gate.matrix.out;
        check(up.matrix.out == width && fits(out, rows, width), "gated_linear: shapes of x, matrices and output do not fit");
        std::vector<Product> products{{gate.matrix, nullptr}, {up.matrix, nullptr}};
        const LoraCall lora = check_linears(x, products, plan, call);
        const Running running(*this);
        jobs_.multiply_aside(x.data(), rows, products, lora);
        jobs_.gelu(products[0].y, products[1].y, out.data(), rows * width);
    }

    // Rows of a table times scale, with what the adapters of the plan add to them.
    void embed(const PackedMatrix& table, Array<const int32_t, 1> ids, float scale, const LoraPlan* plan, int64_t call,
               Array<float, 2> out) {
        const int64_t rows = ids.shape(0);
        check(fits(out, rows, table.matrix.in), "embed: shapes do not fit");
        for (int64_t i = 0; i < rows; i++)
            check(ids.data()[i] >= 0 && ids.data()[i] < table.matrix.out, "embed: a token id is outside the table");
        check_lookup(plan, call, table.matrix, rows);
        const Running running(*this);
        jobs_.embed(table.matrix, ids.data(), rows, scale, plan, call, out.data());
    }

    void rms_norm(Floats2 x, Floats1 weight, float eps, const LoraPlan* plan, int64_t call, Array<float, 2> out) {
        const int64_t rows = x.shape(0), width = x.shape(1);
        check((int64_t)weight.shape(0) == width && fits(out, rows, width), "rms_norm: shapes do not fit");
        const std::vector<NormRun> norms = norm_runs(plan, call, 0, weight.data(), rows, width);
        const Running running(*this);
        jobs_.rms_norm(x.data(), norms, eps, rows, width, out.data());
    }

    // sum = x + rms_norm(p, post), or x + p, where p is y . Wt plus what the adapters of the plan add; normed =
    // rms_norm(sum, weight).
    void add_projection(Floats2 x, Floats2 y, const PackedMatrix& matrix, const LoraPlan* plan, int64_t call,
                        std::optional<Floats1> post, Floats1 weight, float eps, Array<float, 2> sum,
                        Array<float, 2> normed) {
        const int64_t rows = x.shape(0), width = x.shape(1);
        check((int64_t)y.shape(0) == rows && matrix.matrix.out == width && fits(sum, rows, width) &&
                  fits(normed, rows, width) && (int64_t)weight.shape(0) == width &&
                  (!post || (int64_t)post->shape(0) == width),
              "add_projection: shapes do not fit");
        std::vector<Product> products{{matrix.matrix, nullptr}};
        const LoraCall lora = check_linears(y, products, plan, call);
        const std::vector<NormRun> posts = norm_runs(plan, call, 0, post ? post->data() : nullptr, rows, width);
        const std::vector<NormRun> norms = norm_runs(plan, call, 1, weight.data(), rows, width);
        const Running running(*this);
        jobs_.multiply_aside(y.data(), rows, products, lora);
        jobs_.add_and_norm(x.data(), products[0].y, posts, norms, eps, rows, width, sum.data(), normed.data());
    }

    // The attention half of a block: q, k and v of x, heads normed (if asked) and rotated, keys and values stored in one layer
    // of the cache, and every token's look at its own sequence there.
    void self_attention(Floats2 x, const PackedMatrix& q, const PackedMatrix& k, const PackedMatrix& v,
                        const LoraPlan* lora_plan, int64_t call, std::optional<Floats1> q_norm,
                        std::optional<Floats1> k_norm, float eps, Floats2 angles, Array<float, 5> keys,
                        Array<float, 5> values, int64_t layer, const AttentionPlan& plan, float scale, int window,
                        float softcap, Array<float, 2> out) {
        const int64_t tokens = x.shape(0), dim = keys.shape(4);
        check(values.size() == keys.size() && 0 <= layer && layer < (int64_t)keys.shape(0) && window >= 0,
              "self_attention: the cache has another shape");
        Attention a = check_heads(q.matrix, k.matrix, v.matrix, keys);
        a.scale = scale, a.window = window, a.softcap = softcap;
        check(fits(out, tokens, q.matrix.out), "self_attention: matrices, cache and output do not fit");
        check_plan(plan, tokens, a, keys.shape(1));
        check((int64_t)angles.shape(1) == dim && (tokens == 0 || plan.highest_position < (int64_t)angles.shape(0)),
              "self_attention: a position has no angles");
        check((!q_norm || (int64_t)q_norm->shape(0) == dim) && (!k_norm || (int64_t)k_norm->shape(0) == dim),
              "self_attention: a norm has the wrong width");
        std::vector<Product> qkv{{q.matrix, nullptr}, {k.matrix, nullptr}, {v.matrix, nullptr}};
        const LoraCall lora = check_linears(x, qkv, lora_plan, call);
        const std::vector<NormRun> q_norms = norm_runs(lora_plan, call, 0, q_norm ? q_norm->data() : nullptr, tokens, dim);
        const std::vector<NormRun> k_norms = norm_runs(lora_plan, call, 1, k_norm ? k_norm->data() : nullptr, tokens, dim);
        const int64_t layer_size = keys.shape(1) * keys.shape(2) * keys.shape(3) * dim;
        float* const layer_keys = keys.data() + layer * layer_size;
        float* const layer_values = values.data() + layer * layer_size;
        const Running running(*this);
        jobs_.multiply_aside(x.data(), tokens, qkv, lora);
        jobs_.rope_and_cache(qkv, a, q_norms, k_norms, eps, angles.data(), plan, layer_keys, layer_values);
        a.q = qkv[0].y, a.out = out.data(), a.keys = layer_keys, a.values = layer_values;
        jobs_.attention(a, plan);
    }

    void softcap(Array<float, 2> x, float cap) {
        const Running running(*this);
        jobs_.softcap(x.data(), cap, x.size());
    }

    // One id per row; rows of choices: temperature, top_k (0 off), top_p (1 off), uniform. Reads the first `vocab` logits.
    std::vector<int64_t> sample(Array<const float, 2> logits, int64_t vocab,
                                const std::vector<std::tuple<float, int64_t, double, double>>& rows) {
        const int64_t width = logits.shape(1);
        check(rows.size() == logits.shape(0) && 0 < vocab && vocab <= width, "sample: one choice per row");
        std::vector<Choice> choices;
        for (const auto& [temperature, top_k, top_p, uniform] : rows)
            choices.push_back({temperature, top_k, top_p, uniform});
        std::vector<int64_t> ids(rows.size());
        const Running running(*this);
        jobs_.sample(logits.data(), width, vocab, choices, ids.data());
        return ids;
    }

private:
    static const Kernels& find(const std::optional<std::string>& name) {
        const Kernels* const kernels = find_kernels(name ? name->c_str() : nullptr);
        check(kernels, "this machine has no such instruction set");
        return *kernels;
    }

    static bool fits(const Array<float, 2>& array, int64_t rows, int64_t width) {
        return (int64_t)array.shape(0) == rows && (int64_t)array.shape(1) == width;
    }

    // That x and the matrices fit; and what the adapters of the plan do in this call.
    static LoraCall check_linears(const Floats2& x, const std::vector<Product>& products, const LoraPlan* plan,
                                  int64_t call) {
        for (const Product& product : products)
            check(product.matrix.in == (int64_t)x.shape(1), "linears: shapes of x, matrix and output do not fit");
        return lora_call(plan, call, products, x.shape(0));
    }

    // That the three matrices make heads that the cache has room for; and how many, of what size.
    static Attention check_heads(const Matrix& q, const Matrix& k, const Matrix& v, const Array<float, 5>& keys) {
        const int64_t dim = keys.shape(4);
        Attention a{};
        a.block_size = keys.shape(2), a.kv_heads = keys.shape(3), a.dim = dim;
        check(dim > 0 && dim % 2 == 0 && a.kv_heads > 0, "self_attention: the cache has another shape");
        a.heads = q.out / dim;
        check(a.heads > 0 && a.heads * dim == q.out && k.out == a.kv_heads * dim && v.out == k.out &&
                  a.heads % a.kv_heads == 0,
              "self_attention: matrices, cache and output do not fit");
        return a;
    }

    // That the plan is for these tokens and this cache, and no key that is still seen was given back.
    static void check_plan(const AttentionPlan& plan, int64_t tokens, const Attention& a, int64_t num_blocks) {
        check(plan.tokens() == tokens && plan.block_size == a.block_size && plan.highest_block < num_blocks,
              "self_attention: the plan is for another cache or batch");
        for (const AttentionRow& row : plan.rows) {
            const int32_t position = row.context - (row.stop - row.start);
            check(row.first_key <= (a.window ? std::max(0, position - a.window + 1) : 0),
                  "self_attention: a block that is still seen was given back");
        }
    }

    // While it lives the GIL is free and the pool and the scratch memory are this call's.
    struct Running {
        explicit Running(Device& device) : lock(device.mutex_) {}
        nb::gil_scoped_release release;  // first: nobody waits for the lock while holding the GIL
        std::lock_guard<std::mutex> lock;
    };

    std::mutex mutex_;
    Jobs jobs_;
};

}  // namespace intaglio
