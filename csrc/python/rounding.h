// Rounding of weights as Python calls it: shapes are checked, the GIL is released.
#pragma once

#include <optional>

#include "python/arrays.h"
#include "runtime/affine_search.h"

namespace intaglio {

// values [rows, inputs], weights [inputs] or None, whole [rows, inputs] and scales, minima [rows, groups] are written.
inline void search_affine(Floats2 values, std::optional<Floats1> weights, int most, Array<uint8_t, 2> whole,
                          Array<float, 2> scales, Array<float, 2> minima) {
    const auto rows = (int64_t)values.shape(0), inputs = (int64_t)values.shape(1), groups = (inputs + 31) / 32;
    const auto fits = [&](const auto& array, int64_t columns) {
        return (int64_t)array.shape(0) == rows && (int64_t)array.shape(1) == columns;
    };
    check(fits(whole, inputs) && fits(scales, groups) && fits(minima, groups), "whole, scales and minima fit the values");
    check(!weights || (int64_t)weights->shape(0) == inputs, "there is a weight for each input");
    check(most >= 1 && most <= 255, "most is 1 to 255");
    const float* given = weights ? weights->data() : nullptr;
    nb::gil_scoped_release released;
    best_search_affine()(values.data(), given, rows, inputs, most, whole.data(), scales.data(), minima.data());
}

}  // namespace intaglio
