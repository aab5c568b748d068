// The methods of a Device as Python calls them: arrays become views, the GIL is released, then the device checks and computes.
#pragma once

#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "python/arrays.h"
#include "python/matrix.h"
#include "runtime/device.h"
#include "runtime/plans.h"

namespace intaglio::methods {

// The GIL is released before the device's lock is awaited: no thread waits for the lock while holding the GIL.
using WithoutGil = nb::gil_scoped_release;
using Output = Array<float, 2>;

inline std::optional<Vector<const float>> view_if_given(const std::optional<Floats1>& array) {
    return array ? std::optional(view(*array)) : std::nullopt;
}

inline void linears(Device& device, Floats2 x, const std::vector<const PackedMatrix*>& weights, const LoraPlan* plan,
                    int64_t projection, const std::vector<Output>& outputs) {
    std::vector<Matrix> matrices;
    std::vector<Rows<float>> products;
    for (const PackedMatrix* weight : weights) {
        check(weight, "linears: a weight is None");
        matrices.push_back(weight->matrix);
    }
    for (const Output& output : outputs) products.push_back(view(output));
    const WithoutGil released;
    device.linears(view(x), matrices, plan, projection, products);
}

inline void gated_linear(Device& device, Floats2 x, const PackedMatrix& gate, const PackedMatrix& up, const LoraPlan* plan,
                         int64_t projection, Output out) {
    const WithoutGil released;
    device.gated_linear(view(x), gate.matrix, up.matrix, plan, projection, view(out));
}

inline void embed(Device& device, const PackedMatrix& table, Array<const int32_t, 1> ids, float scale, const LoraPlan* plan,
                  int64_t projection, Output out) {
    const WithoutGil released;
    device.embed(table.matrix, view(ids), scale, plan, projection, view(out));
}

inline void rms_norm(Device& device, Floats2 x, Floats1 weight, float eps, const LoraPlan* plan, int64_t projection,
                     Output out) {
    const WithoutGil released;
    device.rms_norm(view(x), view(weight), eps, plan, projection, view(out));
}

inline void add_projection(Device& device, Floats2 x, Floats2 y, const PackedMatrix& matrix, const LoraPlan* plan,
                           int64_t projection, std::optional<Floats1> post, Floats1 weight, float eps, Output sum,
                           Output normed) {
    const WithoutGil released;
    device.add_projection(view(x), view(y), matrix.matrix, plan, projection, view_if_given(post), view(weight), eps, view(sum),
                          view(normed));
}

inline void self_attention(Device& device, Floats2 x, const PackedMatrix& q, const PackedMatrix& k, const PackedMatrix& v,
                           const LoraPlan* lora_plan, int64_t projection, std::optional<Floats1> q_norm,
                           std::optional<Floats1> k_norm, float eps, Floats2 angles, CachedValues keys, CachedValues values,
                           CacheScales key_scales, CacheScales value_scales, int64_t layer, const AttentionPlan& plan,
                           float scale, int window, float softcap, Output out) {
    const CacheArray cached_keys = view(keys, key_scales), cached_values = view(values, value_scales);
    const WithoutGil released;
    device.self_attention(view(x), q.matrix, k.matrix, v.matrix, lora_plan, projection, view_if_given(q_norm),
                          view_if_given(k_norm), eps, view(angles), cached_keys, cached_values, layer, plan, scale, window,
                          softcap, view(out));
}

inline void softcap(Device& device, Output x, float cap) {
    const WithoutGil released;
    device.softcap(view(x), cap);
}

// rows: (temperature, top_k (0 off), top_p (1 off), uniform random number)
inline std::vector<int64_t> sample(Device& device, Floats2 logits, int64_t vocab,
                                   const std::vector<std::tuple<float, int64_t, double, double>>& rows) {
    std::vector<SamplingParams> params;
    for (const auto& [temperature, top_k, top_p, uniform] : rows) params.push_back({temperature, top_k, top_p, uniform});
    const WithoutGil released;
    return device.sample(view(logits), vocab, params);
}

}  // namespace intaglio::methods
