#include "runtime/affine_search.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#ifndef SEARCH
#define SEARCH search_affine_plain
#endif

namespace intaglio {
namespace {

constexpr int GROUP = 32, LANES = 8, PARTS = GROUP / LANES;
// How many steps between a group's extremes are tried: FIRST more than the format has, and so on. With more steps than it
// has, the group's greatest values are clipped. Measured: docs/quantization.md.
constexpr float FIRST = -1.0f, STEP = 0.4f;
constexpr int NUM_TRIED = 10;
constexpr int NUM_REFINED = 3;

// Eight numbers at once, in as many registers as the instruction set needs; the result is the same on all of them.
using Lanes = float __attribute__((vector_size(LANES * 4)));
using Whole = int32_t __attribute__((vector_size(LANES * 4)));

struct Group {
    Lanes x[PARTS], w[PARTS];  // padded with weights of 0
};

struct Affine {
    float scale, least;  // a weight is least + scale * whole
};

float total(Lanes v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }

void round_between(const Group& group, float inverse, float least, float most, Lanes* q) {
    const Lanes zeros{}, greatest = zeros + most;
    for (int i = 0; i < PARTS; i++) {
        Lanes t = (group.x[i] - least) * inverse;
        t = t > zeros ? t : zeros;
        t = t < greatest ? t : greatest;
        q[i] = __builtin_convertvector(__builtin_convertvector(t + 0.5f, Whole), Lanes);
    }
}

float error_of(const Group& group, const Lanes* q, Affine found) {
    Lanes sum{};
    for (int i = 0; i < PARTS; i++) {
        const Lanes d = found.least + found.scale * q[i] - group.x[i];
        sum += group.w[i] * d * d;
    }
    return total(sum);
}

// Sums over a group that do not depend on the whole numbers.
struct Sums {
    float w, x;
};

Sums sums_of(const Group& group) {
    Lanes w{}, x{};
    for (int i = 0; i < PARTS; i++) w += group.w[i], x += group.w[i] * group.x[i];
    return {total(w), total(x)};
}

// The scale and least value with the least squared error for given whole numbers. false: they are all equal.
bool fit(const Group& group, const Sums& sums, const Lanes* q, Affine& found) {
    Lanes wq{}, wqq{}, wqx{};
    for (int i = 0; i < PARTS; i++) {
        const Lanes weighted = group.w[i] * q[i];
        wq += weighted;
        wqq += weighted * q[i];
        wqx += weighted * group.x[i];
    }
    const double sw = sums.w, sx = sums.x, sq = total(wq), sqq = total(wqq), sqx = total(wqx);
    const double d = sw * sqq - sq * sq;
    if (!(d > 1e-6 * sw * sqq)) return false;
    found.scale = (float)((sw * sqx - sx * sq) / d);
    found.least = (float)((sqq * sx - sq * sqx) / d);
    return found.scale > 0;
}

// The nearest number that float16 has.
float half(float x) {
    const float magnitude = std::fabs(x);
    if (magnitude < 6.103515625e-5f) return std::nearbyint(x * 16777216.0f) / 16777216.0f;  // below: steps of 2^-24
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    bits += 0xFFF + (bits >> 13 & 1);
    bits &= ~0x1FFFu;
    float rounded;
    std::memcpy(&rounded, &bits, 4);
    return std::fabs(rounded) > 65504.0f ? std::copysign(INFINITY, x) : rounded;
}

// With numbers that float16 holds, and whole numbers for them. Returns the error.
float settle(const Group& group, float most, Affine& found, Lanes* q) {
    found = {half(found.scale), half(found.least)};
    if (!std::isfinite(found.scale) || !std::isfinite(found.least)) {  // the caller refuses the tensor by name
        std::fill(q, q + PARTS, Lanes{});
        return INFINITY;
    }
    round_between(group, found.scale > 0 ? 1 / found.scale : 0.0f, found.least, most, q);
    return error_of(group, q, found);
}

Affine search(const Group& group, float low, float high, float most, Lanes* q) {
    Lanes tried[PARTS];
    const Sums sums = sums_of(group);
    Affine plain{(high - low) / most, low};
    if (!(high > low)) {
        settle(group, most, plain, q);
        return plain;
    }
    Affine best = plain, now;
    float least_error = INFINITY;
    for (int k = 0; k < NUM_TRIED; k++) {
        round_between(group, (most + FIRST + STEP * (float)k) / (high - low), low, most, tried);
        if (!fit(group, sums, tried, now)) continue;
        const float error = error_of(group, tried, now);
        if (error < least_error) least_error = error, best = now;
    }
    for (int k = 0; k < NUM_REFINED; k++) {
        round_between(group, 1 / best.scale, best.least, most, tried);
        if (!fit(group, sums, tried, now)) break;
        best = now;
    }
    const float found_error = settle(group, most, best, q), plain_error = settle(group, most, plain, tried);
    if (found_error <= plain_error) return best;
    std::copy(tried, tried + PARTS, q);
    return plain;
}

}  // namespace

void SEARCH(const float* values, const float* weights, int64_t rows, int64_t inputs, int most, uint8_t* whole, float* scales,
            float* minima) {
    const int64_t groups = (inputs + GROUP - 1) / GROUP;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t g = 0; g < groups; g++) {
            const int count = (int)std::min<int64_t>(GROUP, inputs - g * GROUP);
            const float* from = values + row * inputs + g * GROUP;
            float x[GROUP], w[GROUP], weight = 0;
            for (int i = 0; i < GROUP; i++) {
                x[i] = from[std::min(i, count - 1)];
                w[i] = i < count ? (weights ? weights[g * GROUP + i] : 1.0f) : 0.0f;
                weight += w[i];
            }
            if (!(weight > 0)) std::fill(w, w + count, 1.0f);  // no input of the group was ever active
            Group group;
            std::memcpy(group.x, x, sizeof x);
            std::memcpy(group.w, w, sizeof w);
            const auto [low, high] = std::minmax_element(x, x + GROUP);
            Lanes q[PARTS];
            const Affine found = search(group, *low, *high, (float)most, q);
            scales[row * groups + g] = found.scale;
            minima[row * groups + g] = -found.least;
            for (int i = 0; i < count; i++) whole[row * inputs + g * GROUP + i] = (uint8_t)q[i / LANES][i % LANES];
        }
}

}  // namespace intaglio
