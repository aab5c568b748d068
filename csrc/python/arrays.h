// Arrays as Python hands them over, and as the runtime reads them.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>

#include "runtime/checks.h"
#include "runtime/views.h"

namespace intaglio {

namespace nb = nanobind;

template <class T, int N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
using Floats1 = Array<const float, 1>;
using Floats2 = Array<const float, 2>;
using LoraArray = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <class T>
Vector<T> view(const Array<T, 1>& array) {
    return {array.data(), (int64_t)array.shape(0)};
}

template <class T>
Rows<T> view(const Array<T, 2>& array) {
    return {array.data(), (int64_t)array.shape(0), (int64_t)array.shape(1)};
}

// Keys or values: float32, bfloat16 (as uint16, which NumPy can hand over) or int8.
using CachedValues = nb::ndarray<nb::ndim<5>, nb::c_contig, nb::device::cpu>;
using CacheScales = std::optional<Array<float, 5>>;

inline CacheArray view(const CachedValues& array, const CacheScales& scales) {
    const bool is_float = array.dtype() == nb::dtype<float>(), is_bfloat = array.dtype() == nb::dtype<uint16_t>();
    if (!is_float && !is_bfloat && array.dtype() != nb::dtype<int8_t>())
        throw nb::type_error("keys and values are float32, bfloat16 (as uint16) or int8");
    const KVFormat format = is_float ? KVFormat::f32 : is_bfloat ? KVFormat::bf16 : KVFormat::int8;
    const auto size = [&](int axis) { return (int64_t)array.shape(axis); };
    return {array.data(),
            format,
            size(0),
            size(1),
            size(2),
            size(3),
            size(4),
            scales ? scales->data() : nullptr,
            scales ? (int64_t)scales->size() : 0};
}

}  // namespace intaglio
