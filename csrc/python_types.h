// Arrays as Python hands them over, and the one way to refuse them.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

namespace intaglio {

namespace nb = nanobind;

template <class T, int N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
using Floats1 = Array<const float, 1>;
using Floats2 = Array<const float, 2>;
using LoraArray = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

inline void check(bool good, const char* what) {
    if (!good) throw nb::value_error(what);
}

}  // namespace intaglio
