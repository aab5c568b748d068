// Rounding of groups of 32 weights to whole numbers with a scale and a minimum, by search for the least squared error.
#pragma once

#include <cstdint>

namespace intaglio {

// values   [rows, inputs] float32, finite
// weights  [inputs]: of an error in each input, at least 0; nullptr: all the same
// most     the greatest whole number: 15 or 31
// whole    [rows, inputs] out: 0 ... most
// scales, minima  [rows, groups] out: float32 numbers that float16 holds exactly; a weight is scale * whole - minimum
//
// The result of a group depends on that group alone, and is never worse than rounding between its extremes.
using SearchAffine = void(const float* values, const float* weights, int64_t rows, int64_t inputs, int most, uint8_t* whole,
                          float* scales, float* minima);

// One source, compiled with and without AVX2; both give the same bits.
SearchAffine search_affine_plain, search_affine_avx2;

inline SearchAffine* best_search_affine() {
#ifdef INTAGLIO_SEARCH_AVX2
    if (__builtin_cpu_supports("avx2")) return search_affine_avx2;
#endif
    return search_affine_plain;
}

}  // namespace intaglio
