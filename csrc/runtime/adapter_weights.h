// An adapter's matrices in memory, as the kernels read them.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/kernels.h"
#include "runtime/pages.h"

namespace intaglio {

// What an adapter changes in one projection of a forward: one pair per weight matrix, and vectors in place of the norm weights
// that the projection is given (null: the base's), each with its width.
struct ProjectionWeights {
    std::vector<LoraPair> pairs;
    std::vector<std::pair<const float*, int64_t>> norms;
};

// Calls `vector` with every vector and its size (0 if it is missing) and `values` with every matrix, in memory order.
template <class Vector, class Values>
void for_each_tensor(std::vector<ProjectionWeights>& projections, Vector vector, Values values) {
    for (ProjectionWeights& projection : projections) {
        for (LoraPair& pair : projection.pairs) {
            vector(pair.scales, pair.rank);
            vector(pair.bias, pair.bias ? pair.out : 0);
            vector(pair.gain, pair.gain ? pair.out : 0);
        }
        for (auto& [norm, width] : projection.norms) vector(norm, norm ? width : 0);
        for (LoraPair& pair : projection.pairs) values(pair.a, pair.rank, pair.in, kRanks, pair.size);
        for (LoraPair& pair : projection.pairs) values(pair.bt, pair.rank, pair.out, pair.rank, pair.size);
    }
}

// Bytes of an adapter's matrices, and floats of its vectors.
inline void adapter_size(std::vector<ProjectionWeights>& projections, int64_t& bytes, int64_t& floats) {
    for_each_tensor(
        projections, [&](const float*, int64_t size) { floats += size; },
        [&](const void*, int64_t rows, int64_t width, int64_t, int64_t size) { bytes += rows * lora_width(width) * size; });
}

// One adapter, its matrices in one piece of memory, in the order in which a forward reads them: of each projection the As,
// then the Bs. Its vectors lie in a second piece.
class AdapterWeights {
public:
    // projections: matrices A and Bt row by row, and vectors. All are copied; the matrices into `spare`, if it is large enough and
    // at least about half of it is used then.
    AdapterWeights(std::vector<ProjectionWeights> projections, std::shared_ptr<Pages> spare)
        : projections_(std::move(projections)) {
        adapter_size(projections_, num_bytes_, num_floats_);
        pages_ = fits(spare) ? std::move(spare) : std::make_shared<Pages>(std::max<int64_t>(1, num_bytes_));
        char* to = pages_->data();
        own_vectors_.resize(num_floats_);  // never again, because the pairs point into it
        float* floats = own_vectors_.data();
        for_each_tensor(
            projections_,
            [&](const float*& vector, int64_t size) {
                if (size) vector = std::copy_n(vector, size, floats) - size, floats += size;
            },
            [&](const void*& matrix, int64_t rows, int64_t width, int64_t together, int64_t size) {
                to = pack(matrix, rows, width, together, size, to);
            });
        values_ = pages_->data(), vectors_ = own_vectors_.data();
    }

    // An adapter in existing memory: `values` and `vectors` have the layout that `values()` and `vectors()` of another adapter have,
    // the projections have the sizes, and `owner` keeps the memory alive. The matrices are copied into `spare` if they fit, because
    // large pages make them quicker to read; otherwise they are used in place.
    AdapterWeights(std::vector<ProjectionWeights> projections, const char* values, const float* vectors,
                   std::shared_ptr<void> owner, const std::shared_ptr<Pages>& spare)
        : projections_(std::move(projections)), vectors_(vectors), owner_(std::move(owner)) {
        adapter_size(projections_, num_bytes_, num_floats_);
        if (fits(spare)) {
            pages_ = spare;
            values = (const char*)std::memcpy(pages_->data(), values, num_bytes_);
        }
        values_ = values;
        for_each_tensor(
            projections_, [&](const float*& vector, int64_t size) { vector = size ? vectors : nullptr, vectors += size; },
            [&](const void*& matrix, int64_t rows, int64_t width, int64_t, int64_t size) {
                matrix = values, values += rows * lora_width(width) * size;
            });
    }

    AdapterWeights(const AdapterWeights&) = delete;

    const std::vector<ProjectionWeights>& projections() const { return projections_; }

    int64_t bytes() const { return num_bytes_; }    // of the matrices
    int64_t floats() const { return num_floats_; }  // of the vectors
    const char* values() const { return values_; }
    const float* vectors() const { return vectors_; }

private:
    static constexpr int64_t kLargePage = 1 << 21;

    bool fits(const std::shared_ptr<Pages>& spare) const {
        return spare && spare->size() >= num_bytes_ && spare->size() <= 2 * num_bytes_ + kLargePage;
    }

    // Copies rows of `width` values of `size` bytes to `to`, `together` rows interleaved by 16 values; `values` then points there.
    static char* pack(const void*& values, int64_t rows, int64_t width, int64_t together, int64_t size, char* to) {
        const char* from = (const char*)values;
        values = to;
        for (int64_t first = 0; first < rows; first += together)
            for (int64_t i = 0; i < width; i += 16)
                for (int64_t row = first; row < std::min(first + together, rows); row++, to += 16 * size)
                    std::memcpy(to, from + (row * width + i) * size, std::min<int64_t>(16, width - i) * size);
        return to;
    }

    std::vector<ProjectionWeights> projections_;
    int64_t num_bytes_ = 0, num_floats_ = 0;
    const char* values_ = nullptr;
    const float* vectors_ = nullptr;
    std::vector<float> own_vectors_;
    std::shared_ptr<Pages> pages_;
    std::shared_ptr<void> owner_;
};

// Begins to load what `lora_expand` reads for outputs [begin, end). Always inlined, because GCC drops calls of a function that only
// prefetches.
inline __attribute__((always_inline)) void prefetch_expand(const LoraPair& pair, int64_t begin, int64_t end) {
    const int64_t size = pair.rank * pair.size;  // bytes per output
    const char* values = (const char*)pair.bt;
    for (int64_t at = begin * size; at < end * size; at += 64) __builtin_prefetch(values + at);
}

}  // namespace intaglio
