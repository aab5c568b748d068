// The operations: each checks its arguments, then runs its jobs (jobs.h). Throws std::invalid_argument if an argument does not
// fit, before anything is written.
#pragma once

#include <algorithm>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "runtime/checks.h"
#include "runtime/jobs.h"
#include "runtime/plans.h"
#include "runtime/projection.h"
#include "runtime/views.h"

namespace intaglio {

// The kernels of one instruction set: the named one, or the best that this machine has. One operation runs at a time; those of
// several threads wait for each other.
class Device {
public:
    Device(int threads, const std::optional<std::string>& name) : jobs_(find(name), threads) {}

    const char* name() const { return jobs_.name(); }
    int threads() const { return jobs_.threads(); }

    // y = x . Wt for each matrix, plus what the adapters of the plan add.
    void linears(Rows<const float> x, const std::vector<Matrix>& weights, const LoraPlan* plan, int64_t projection,
                 const std::vector<Rows<float>>& outputs) {
        check(weights.size() == outputs.size(), "one output per matrix");
        std::vector<Product> products;
        products.reserve(weights.size());
        for (size_t i = 0; i < weights.size(); i++) {
            check(outputs[i].has_shape(x.rows, weights[i].out), "linears: shapes of x, matrix and output do not fit");
            products.push_back({weights[i], outputs[i].data});
        }
        const LoraWork lora = check_linears(x, products, plan, projection);
        if (products.empty()) return;
        const std::lock_guard<std::mutex> lock(mutex_);
        jobs_.multiply(x.data, x.rows, products, lora);
    }

    // gelu(x . gatet) * (x . upt), with what the adapters of the plan add to both products.
    void gated_linear(Rows<const float> x, const Matrix& gate, const Matrix& up, const LoraPlan* plan, int64_t projection,
                      Rows<float> out) {
        const int64_t rows = x.rows, width = gate.out;
        check(up.out == width && out.has_shape(rows, width), "gated_linear: shapes of x, matrices and output do not fit");
        std::vector<Product> products{{gate, nullptr}, {up, nullptr}};
        const LoraWork lora = check_linears(x, products, plan, projection);
        const std::lock_guard<std::mutex> lock(mutex_);
        jobs_.multiply_into_scratch(x.data, rows, products, lora);
        jobs_.gelu(products[0].y, products[1].y, out.data, rows * width);
    }

    // Rows of a table times scale, with what the adapters of the plan add to them.
    void embed(const Matrix& table, Vector<const int32_t> ids, float scale, const LoraPlan* plan, int64_t projection,
               Rows<float> out) {
        const int64_t rows = ids.size;
        check(out.has_shape(rows, table.in), "embed: shapes do not fit");
        for (int64_t i = 0; i < rows; i++)
            check(ids.data[i] >= 0 && ids.data[i] < table.out, "embed: a token id is outside the table");
        check_lookup(plan, projection, table, rows);
        const std::lock_guard<std::mutex> lock(mutex_);
        jobs_.embed(table, ids.data, rows, scale, plan, projection, out.data);
    }

    void rms_norm(Rows<const float> x, Vector<const float> weight, float eps, const LoraPlan* plan, int64_t projection,
                  Rows<float> out) {
        const int64_t rows = x.rows, width = x.width;
        check(weight.size == width && out.has_shape(rows, width), "rms_norm: shapes do not fit");
        const std::vector<NormRun> norms = norm_runs(plan, projection, 0, weight.data, rows, width);
        const std::lock_guard<std::mutex> lock(mutex_);
        jobs_.rms_norm(x.data, norms, eps, rows, width, out.data);
    }

    // sum = x + rms_norm(p, post), or x + p, where p is y . Wt plus what the adapters of the plan add; normed =
    // rms_norm(sum, weight).
    void add_projection(Rows<const float> x, Rows<const float> y, const Matrix& matrix, const LoraPlan* plan,
                        int64_t projection, std::optional<Vector<const float>> post, Vector<const float> weight, float eps,
                        Rows<float> sum, Rows<float> normed) {
        const int64_t rows = x.rows, width = x.width;
        check(y.rows == rows && matrix.out == width && sum.has_shape(rows, width) && normed.has_shape(rows, width) &&
                  weight.size == width && (!post || post->size == width),
              "add_projection: shapes do not fit");
        std::vector<Product> products{{matrix, nullptr}};
        const LoraWork lora = check_linears(y, products, plan, projection);
        const std::vector<NormRun> posts = norm_runs(plan, projection, 0, post ? post->data : nullptr, rows, width);
        const std::vector<NormRun> norms = norm_runs(plan, projection, 1, weight.data, rows, width);
        const std::lock_guard<std::mutex> lock(mutex_);
        jobs_.multiply_into_scratch(y.data, rows, products, lora);
        jobs_.add_and_norm(x.data, products[0].y, posts, norms, eps, rows, width, sum.data, normed.data);
    }

    // The attention half of a block: q, k and v of x, heads normed (if asked) and rotated, keys and values stored in one layer
    // of the cache, and attention of every token over its own sequence.
    void self_attention(Rows<const float> x, const Matrix& q, const Matrix& k, const Matrix& v, const LoraPlan* lora_plan,
                        int64_t projection, std::optional<Vector<const float>> q_norm,
                        std::optional<Vector<const float>> k_norm, float eps, Rows<const float> angles, CacheArray keys,
                        CacheArray values, int64_t layer, const AttentionPlan& plan, float scale, int window, float softcap,
                        Rows<float> out) {
        const int64_t tokens = x.rows, dim = keys.dim;
        check_cache(keys, values, layer);
        check(window >= 0, "self_attention: a window has at least one token");
        Attention a = check_heads(q, k, v, keys);
        a.scale = scale, a.window = window, a.softcap = softcap;
        check(out.has_shape(tokens, q.out), "self_attention: matrices, cache and output do not fit");
        check_plan(plan, tokens, a, keys.blocks);
        check(angles.width == dim && (tokens == 0 || plan.highest_position < angles.rows),
              "self_attention: a position has no angles");
        check((!q_norm || q_norm->size == dim) && (!k_norm || k_norm->size == dim),
              "self_attention: a norm has the wrong width");
        std::vector<Product> qkv{{q, nullptr}, {k, nullptr}, {v, nullptr}};
        const LoraWork lora = check_linears(x, qkv, lora_plan, projection);
        const std::vector<NormRun> q_norms = norm_runs(lora_plan, projection, 0, q_norm ? q_norm->data : nullptr, tokens, dim);
        const std::vector<NormRun> k_norms = norm_runs(lora_plan, projection, 1, k_norm ? k_norm->data : nullptr, tokens, dim);
        a.format = keys.format, a.keys = keys.layer(layer, kGroup), a.values = values.layer(layer, dim);
        const std::lock_guard<std::mutex> lock(mutex_);
        jobs_.multiply_into_scratch(x.data, tokens, qkv, lora);
        jobs_.rope_and_cache(qkv, a, q_norms, k_norms, eps, angles.data, plan);
        a.q = qkv[0].y, a.out = out.data;
        jobs_.attention(a, plan);
    }

    void softcap(Rows<float> x, float cap) {
        const std::lock_guard<std::mutex> lock(mutex_);
        jobs_.softcap(x.data, cap, x.rows * x.width);
    }

    // One id per row of logits, of the first `vocab`; -1 where no logit is finite.
    std::vector<int64_t> sample(Rows<const float> logits, int64_t vocab, const std::vector<SamplingParams>& rows) {
        check((int64_t)rows.size() == logits.rows && 0 < vocab && vocab <= logits.width,
              "sample: one set of parameters per row");
        std::vector<int64_t> ids(rows.size());
        const std::lock_guard<std::mutex> lock(mutex_);
        jobs_.sample(logits.data, logits.width, vocab, rows, ids.data());
        return ids;
    }

private:
    static const Kernels& find(const std::optional<std::string>& name) {
        const Kernels* const kernels = find_kernels(name ? name->c_str() : nullptr);
        check(kernels, "this machine has no such instruction set");
        return *kernels;
    }

    // Checks that x and the matrices fit. Returns what the adapters of the plan add.
    static LoraWork check_linears(const Rows<const float>& x, const std::vector<Product>& products, const LoraPlan* plan,
                                  int64_t projection) {
        for (const Product& product : products)
            check(product.matrix.in == x.width, "linears: shapes of x, matrix and output do not fit");
        return lora_work(plan, projection, products, x.rows);
    }

    static void check_cache(const CacheArray& keys, const CacheArray& values, int64_t layer) {
        check(values.size() == keys.size() && values.dim == keys.dim && keys.dim > 0 && values.format == keys.format &&
                  0 <= layer && layer < keys.layers,
              "self_attention: the cache has another shape");
        check(keys.has_scales_for(kGroup) && values.has_scales_for(values.dim),
              "self_attention: int8 keys and values have a scale for each 32 numbers and for each head, others have none");
    }

    // Checks that the heads of the three matrices fit the cache. Returns their numbers and size.
    static Attention check_heads(const Matrix& q, const Matrix& k, const Matrix& v, const CacheArray& keys) {
        const int64_t dim = keys.dim;
        Attention a{};
        a.block_size = keys.block_size, a.kv_heads = keys.kv_heads, a.dim = dim;
        check(dim > 0 && dim % 2 == 0 && a.kv_heads > 0, "self_attention: the cache has another shape");
        a.heads = q.out / dim;
        check(a.heads > 0 && a.heads * dim == q.out && k.out == a.kv_heads * dim && v.out == k.out && a.heads % a.kv_heads == 0,
              "self_attention: matrices, cache and output do not fit");
        return a;
    }

    // Checks that the plan is for these tokens and this cache, and that no key that a query sees was released.
    static void check_plan(const AttentionPlan& plan, int64_t tokens, const Attention& a, int64_t num_blocks) {
        check(plan.tokens() == tokens && plan.block_size == a.block_size && plan.highest_block < num_blocks,
              "self_attention: the plan is for another cache or batch");
        for (const AttentionRow& row : plan.rows) {
            const int32_t position = row.context - (row.stop - row.start);
            check(row.first_key <= (a.window ? std::max(0, position - a.window + 1) : 0),
                  "self_attention: a block that a query still sees was released");
        }
    }

    std::mutex mutex_;  // held while the pool and the scratch memory are in use
    Jobs jobs_;
};

}  // namespace intaglio
