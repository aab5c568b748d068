// Arrays as Python hands them over, and as the runtime reads them.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

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

inline CacheArray view(const Array<float, 5>& array) {
    const auto size = [&](int axis) { return (int64_t)array.shape(axis); };
    return {array.data(), size(0), size(1), size(2), size(3), size(4)};
}

}  // namespace intaglio
