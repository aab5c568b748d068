// A weight matrix as Python hands it over: arrays in the kernels' layout.
#pragma once

#include <nanobind/stl/optional.h>

#include <optional>

#include "kernels/kernels.h"
#include "python/arrays.h"

namespace intaglio {

// A packed weight matrix; keeps the arrays it points into alive.
struct PackedMatrix {
    Matrix matrix;
    nb::object values, scales, minima;
};

inline PackedMatrix pack(int format, int64_t out, int64_t in, nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu> values,
                         std::optional<Array<const uint16_t, 3>> scales, std::optional<Array<const uint16_t, 3>> minima) {
    const auto kind = (Format)format;
    check(0 <= format && format <= (int)Format::w5 && out > 0 && in > 0 && out < (1 << 30) && in < (1 << 30),
          "no such format or shape");
    Matrix matrix{kind, out, in, values.data(), nullptr, nullptr};
    check((int64_t)values.nbytes() == value_bytes(matrix), "packed values have the wrong size");
    const int64_t numbers = tile_count(matrix) * group_count(in) * kTile;  // scales, and minima
    if (is_quantized(kind)) {
        check(scales && (int64_t)scales->size() == numbers, "packed scales have the wrong size");
        matrix.scales = scales->data();
    }
    if (is_quantized(kind) && kind != Format::w8 && minima) {
        check((int64_t)minima->size() == numbers, "packed minima have the wrong size");
        matrix.minima = minima->data();
    }
    return {matrix, nb::cast(values), scales ? nb::cast(*scales) : nb::none(), minima ? nb::cast(*minima) : nb::none()};
}

}  // namespace intaglio
