// Adapters as Python hands them over: arrays, or memory read from disk with the shapes of what is in it.
#pragma once

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "python/arrays.h"
#include "runtime/adapter_weights.h"

namespace intaglio {

// What an adapter changes in each projection of a forward, as Python has it: (pairs, norms) per projection, a pair being None or
// (a, bt, scales, bias or None, gain or None), a norm None or a vector. Keeps the arrays alive.
struct AdapterArrays {
    std::vector<ProjectionWeights> projections;
    std::vector<LoraArray> matrices;
    std::vector<Floats1> vectors;

    explicit AdapterArrays(const std::vector<std::pair<nb::list, nb::list>>& items) : projections(items.size()) {
        for (size_t i = 0; i < items.size(); i++) {
            for (nb::handle pair : items[i].first) projections[i].pairs.push_back(read_pair(pair));
            for (nb::handle item : items[i].second) {
                const auto norm = nb::cast<std::optional<Floats1>>(item);
                projections[i].norms.emplace_back(vector(norm), norm ? norm->shape(0) : 0);
            }
        }
    }

private:
    const float* vector(const std::optional<Floats1>& values) {
        if (!values) return nullptr;
        vectors.push_back(*values);
        return values->data();
    }

    LoraPair read_pair(nb::handle item) {
        if (item.is_none()) return {};
        auto [a, bt, scales, bias, gain] =
            nb::cast<std::tuple<LoraArray, LoraArray, Floats1, std::optional<Floats1>, std::optional<Floats1>>>(item);
        const auto code = (nb::dlpack::dtype_code)a.dtype().code;
        const int64_t size = a.itemsize(), rank = a.shape(0), in = a.shape(1), out = bt.shape(1);
        check(a.shape(0) == bt.shape(0) && a.shape(0) == scales.shape(0), "lora: A, B and scales differ in rank");
        check(a.dtype() == bt.dtype() &&
                  (size == 1 ? code == nb::dlpack::dtype_code::Int : code == nb::dlpack::dtype_code::Float && size <= 4),
              "lora: A and B must both be float32, half precision or int8");
        check(!bias || (int64_t)bias->shape(0) == out, "lora: a bias has another width than B");
        check(!gain || (int64_t)gain->shape(0) == out, "lora: a gain has another width than B");
        matrices.insert(matrices.end(), {a, bt});
        return {a.data(), bt.data(), rank, in, out, vector(scales), size, vector(bias), vector(gain)};
    }
};

inline AdapterWeights* pack_adapter(const std::vector<std::pair<nb::list, nb::list>>& projections,
                                    std::shared_ptr<Pages> spare) {
    AdapterArrays arrays(projections);
    const nb::gil_scoped_release release;
    return new AdapterWeights(std::move(arrays.projections), std::move(spare));
}

constexpr size_t kPairFields = 6, kNormFields = 2;

// What `attach_adapter` needs besides the memory: per projection the pairs as (rank, in, out, bytes of a value, has a bias, has a
// gain), and the norms as (0 or 1, width).
inline nb::list adapter_shapes(const AdapterWeights& weights) {
    nb::list projections;
    for (const ProjectionWeights& projection : weights.projections()) {
        std::vector<std::array<int64_t, kPairFields>> pairs;
        std::vector<std::array<int64_t, kNormFields>> norms;
        for (const LoraPair& pair : projection.pairs)
            pairs.push_back({pair.rank, pair.in, pair.out, pair.size, pair.bias ? 1 : 0, pair.gain ? 1 : 0});
        for (const auto& [norm, width] : projection.norms) norms.push_back({norm ? 1 : 0, width});
        projections.append(nb::make_tuple(pairs, norms));
    }
    return projections;
}

using PairShapes = std::vector<std::array<int64_t, kPairFields>>;
using NormShapes = std::vector<std::array<int64_t, kNormFields>>;

// An adapter from its shapes, values and vectors; the matrices are copied into the spare memory if they fit, else used in place.
inline AdapterWeights* attach_adapter(const std::vector<std::pair<PairShapes, NormShapes>>& shapes,
                                      Array<const uint8_t, 1> values, Floats1 vectors, std::shared_ptr<Pages> spare) {
    static const float present = 0;
    std::vector<ProjectionWeights> projections;
    for (const auto& [pairs, norms] : shapes) {
        ProjectionWeights& projection = projections.emplace_back();
        const auto sane = [](int64_t n) { return 0 <= n && n < (1 << 30); };
        for (const auto& [rank, in, out, size, bias, gain] : pairs) {
            check(sane(rank) && sane(in) && sane(out) && (size == 1 || size == 2 || size == 4 || (size == 0 && rank == 0)),
                  "lora: no such shape");
            projection.pairs.push_back(
                {nullptr, nullptr, rank, in, out, nullptr, size, bias ? &present : nullptr, gain ? &present : nullptr});
        }
        for (const auto& [there, width] : norms) {
            check(sane(width), "lora: no such shape");
            projection.norms.emplace_back(there ? &present : nullptr, width);
        }
    }
    auto* kept = new std::pair(nb::cast(values), nb::cast(vectors));
    const std::shared_ptr<void> owner(kept, [](void* arrays) {
        const nb::gil_scoped_acquire gil;
        delete (std::pair<nb::object, nb::object>*)arrays;
    });
    int64_t bytes = 0, floats = 0;
    adapter_size(projections, bytes, floats);
    check(bytes == (int64_t)values.size() && floats == (int64_t)vectors.size(),
          "lora: the arrays have other sizes than the shapes");
    const nb::gil_scoped_release release;
    return new AdapterWeights(std::move(projections), (const char*)values.data(), vectors.data(), owner, spare);
}

// Memory for the next adapter, allocated before a request waits for it.
inline std::shared_ptr<Pages> touched_pages(int64_t size) {
    check(0 < size && size < (int64_t{1} << 40), "pages: no such size");
    const nb::gil_scoped_release release;
    auto pages = std::make_shared<Pages>(size);
    pages->touch();
    return pages;
}

}  // namespace intaglio
