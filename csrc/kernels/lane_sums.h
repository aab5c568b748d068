// Many sums of sixteen lanes at once, because a single sum waits for its own last addition.
#pragma once

#include <cstring>

#include "kernels/simd.h"

namespace intaglio::ISA {

// Sums that are held in registers at once: half of the registers, so that the factors fit too.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kSums = 16;
#else
constexpr int kSums = 8;
#endif

INTAGLIO_INLINE Floats load_part(const float* p) {
    Floats part;
    std::memcpy(&part, p, sizeof part);
    return part;
}

INTAGLIO_INLINE void store_part(float* p, Floats part) { std::memcpy(p, &part, sizeof part); }

// The elements of a and of b, one after the other, that `index` names.
template <int... index>
INTAGLIO_INLINE Floats pick(Floats a, Floats b) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, index...);
#else
    return __builtin_shuffle(a, b, Ints{index...});
#endif
}

// fold8 ... fold1 add the halves, quarters ... of two vectors; one vector has the results of both side by side. The tree is
// that of `sum`: lane i and lane i + 8, then i + 4, i + 2, i + 1.
#if defined(__AVX512F__)
INTAGLIO_INLINE Floats fold8(Floats a, Floats b) {
    return pick<0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23>(a, b) +
           pick<8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31>(a, b);
}
INTAGLIO_INLINE Floats fold4(Floats a, Floats b) {
    return pick<0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27>(a, b) +
           pick<4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31>(a, b);
}
INTAGLIO_INLINE Floats fold2(Floats a, Floats b) {
    return pick<0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29>(a, b) +
           pick<2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31>(a, b);
}
INTAGLIO_INLINE Floats fold1(Floats a, Floats b) {
    return pick<0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30>(a, b) +
           pick<1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31>(a, b);
}
INTAGLIO_INLINE Floats fold_to_quarters(const Floats* v) { return fold4(fold8(v[0], v[4]), fold8(v[8], v[12])); }
#elif defined(__AVX2__)
INTAGLIO_INLINE Floats fold4(Floats a, Floats b) {
    return pick<0, 1, 2, 3, 8, 9, 10, 11>(a, b) + pick<4, 5, 6, 7, 12, 13, 14, 15>(a, b);
}
INTAGLIO_INLINE Floats fold2(Floats a, Floats b) {
    return pick<0, 1, 8, 9, 4, 5, 12, 13>(a, b) + pick<2, 3, 10, 11, 6, 7, 14, 15>(a, b);
}
INTAGLIO_INLINE Floats fold1(Floats a, Floats b) {
    return pick<0, 2, 8, 10, 4, 6, 12, 14>(a, b) + pick<1, 3, 9, 11, 5, 7, 13, 15>(a, b);
}
INTAGLIO_INLINE Floats fold_to_quarters(const Floats* v) { return fold4(v[0], v[4]); }
#else
INTAGLIO_INLINE Floats fold2(Floats a, Floats b) { return pick<0, 1, 4, 5>(a, b) + pick<2, 3, 6, 7>(a, b); }
INTAGLIO_INLINE Floats fold1(Floats a, Floats b) { return pick<0, 2, 4, 6>(a, b) + pick<1, 3, 5, 7>(a, b); }
INTAGLIO_INLINE Floats fold_to_quarters(const Floats* v) { return v[0]; }
#endif

// Lane i is the sum of the lanes of v[i], for as many vectors as there are lanes.
INTAGLIO_INLINE Floats sums_of_lanes(const Floats* v) {
    return fold1(fold2(fold_to_quarters(v), fold_to_quarters(v + 1)), fold2(fold_to_quarters(v + 2), fold_to_quarters(v + 3)));
}

// sums[i] = sum(v[i]) for kSums V16 whose parts lie as [kParts][kSums].
INTAGLIO_INLINE void fold_all(Floats (*parts)[kSums], float* sums) {
    for (int width = kParts / 2; width > 0; width /= 2)
        for (int p = 0; p < width; p++)
            for (int i = 0; i < kSums; i++) parts[p][i] = parts[p][i] + parts[p + width][i];
    for (int i = 0; i < kSums; i += kLanes) store_part(sums + i, sums_of_lanes(parts[0] + i));
}

}  // namespace intaglio::ISA
