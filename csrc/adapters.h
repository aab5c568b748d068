// An adapter's matrices in memory, as the kernels read them.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "kernels.h"

namespace intaglio {

// Zeroed memory in pages of its own, which the system gets back as soon as it is gone. Large pages where the system has
// them: of the small ones a step would have to look up thousands, which takes longer than reading what they hold.
class Pages {
public:
    explicit Pages(int64_t bytes) {
        const int64_t padded = (bytes + kLarge - 1) / kLarge * kLarge;
        size_ = (padded - bytes <= bytes / 8 ? padded : bytes) + kLarge;
        start_ = (char*)mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start_ == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
        madvise(data(), size_ - (data() - start_), MADV_HUGEPAGE);
#endif
    }

    ~Pages() { munmap(start_, size_); }

    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;

    char* data() const { return start_ + -(uintptr_t)start_ % kLarge; }

    int64_t size() const { return size_ - kLarge; }

    // Has the system give the memory now, and not when it is first used.
    void touch() {
        for (int64_t at = 0; at < size(); at += kSmall) ((volatile char*)data())[at] = 0;
    }

private:
    static constexpr int64_t kSmall = 4096;  // bytes of a page, where there are no large ones
    static constexpr uintptr_t kLarge = 1 << 21;  // bytes of a large page, at whose multiple the memory begins
    char* start_;
    int64_t size_;
};

// What an adapter changes in one call of a forward: one part per weight matrix, and vectors in place of the norm weights that
// the call is given (null: the base's).
struct LoraCallParts {
    std::vector<LoraPart> parts;
    std::vector<std::pair<const float*, int64_t>> norms;
};

// Every vector with its size (0 where there is none), and every matrix, in the order in which they lie.
template <class Vector, class Values>
void each_tensor(std::vector<LoraCallParts>& calls, Vector vector, Values values) {
    for (LoraCallParts& call : calls) {
        for (LoraPart& part : call.parts) {
            vector(part.scales, part.rank);
            vector(part.bias, part.bias ? part.out : 0);
            vector(part.gain, part.gain ? part.out : 0);
        }
        for (auto& [norm, width] : call.norms) vector(norm, norm ? width : 0);
        for (LoraPart& part : call.parts) values(part.a, part.rank, part.in, kRanks, part.size);
        for (LoraPart& part : call.parts) values(part.bt, part.rank, part.out, part.rank, part.size);
    }
}

// Bytes of an adapter's matrices, and floats of its vectors.
inline void adapter_size(std::vector<LoraCallParts>& calls, int64_t& bytes, int64_t& floats) {
    each_tensor(calls, [&](const float*, int64_t size) { floats += size; },
                [&](const void*, int64_t rows, int64_t width, int64_t, int64_t size) {
                    bytes += rows * lora_width(width) * size;
                });
}

// One adapter, its matrices in one piece of memory, in the order in which a forward reads them: of each call the As, then the
// Bs. Its vectors lie in another.
class AdapterWeights {
public:
    // calls: parts with A and Bt row by row, and vectors, all of which are copied; the matrices into `spare`, if it is large
    // enough and not half empty then.
    AdapterWeights(std::vector<LoraCallParts> calls, std::shared_ptr<Pages> spare) : calls_(std::move(calls)) {
        adapter_size(calls_, num_bytes_, num_floats_);
        pages_ = fits(spare) ? std::move(spare) : std::make_shared<Pages>(std::max<int64_t>(1, num_bytes_));
        char* to = pages_->data();
        own_vectors_.resize(num_floats_);  // so that what is in it stays where it is
        float* floats = own_vectors_.data();
        each_tensor(calls_, [&](const float*& vector, int64_t size) {
            if (size) vector = std::copy_n(vector, size, floats) - size, floats += size;
        }, [&](const void*& matrix, int64_t rows, int64_t width, int64_t together, int64_t size) {
            to = pack(matrix, rows, width, together, size, to);
        });
        values_ = pages_->data(), vectors_ = own_vectors_.data();
    }

    // The adapter whose matrices and vectors lie at `values` and `vectors` as those of another do; the calls say how large
    // they are. owner keeps them. The matrices are copied into `spare`, where large pages make them quicker to read, if it
    // fits; without it nobody waits for memory, and they are used where they are.
    AdapterWeights(std::vector<LoraCallParts> calls, const char* values, const float* vectors, std::shared_ptr<void> owner,
                const std::shared_ptr<Pages>& spare)
        : calls_(std::move(calls)), vectors_(vectors), owner_(std::move(owner)) {
        adapter_size(calls_, num_bytes_, num_floats_);
        if (fits(spare)) {
            pages_ = spare;
            values = (const char*)std::memcpy(pages_->data(), values, num_bytes_);
        }
        values_ = values;
        each_tensor(calls_, [&](const float*& vector, int64_t size) { vector = size ? vectors : nullptr, vectors += size; },
                    [&](const void*& matrix, int64_t rows, int64_t width, int64_t, int64_t size) {
                        matrix = values, values += rows * lora_width(width) * size;
                    });
    }

    AdapterWeights(const AdapterWeights&) = delete;

    const std::vector<LoraCallParts>& calls() const { return calls_; }

    int64_t bytes() const { return num_bytes_; }    // of the matrices
    int64_t floats() const { return num_floats_; }  // of the vectors
    const char* values() const { return values_; }
    const float* vectors() const { return vectors_; }

private:
    static constexpr int64_t kLargePage = 1 << 21;

    bool fits(const std::shared_ptr<Pages>& spare) const {
        return spare && spare->size() >= num_bytes_ && spare->size() <= 2 * num_bytes_ + kLargePage;
    }

    // Rows of `width` values of `size` bytes, `together` rows interleaved by 16 values; `values` then says where they are.
    static char* pack(const void*& values, int64_t rows, int64_t width, int64_t together, int64_t size, char* to) {
        const char* from = (const char*)values;
        values = to;
        for (int64_t first = 0; first < rows; first += together)
            for (int64_t i = 0; i < width; i += 16)
                for (int64_t row = first; row < std::min(first + together, rows); row++, to += 16 * size)
                    std::memcpy(to, from + (row * width + i) * size, std::min<int64_t>(16, width - i) * size);
        return to;
    }

    std::vector<LoraCallParts> calls_;
    int64_t num_bytes_ = 0, num_floats_ = 0;
    const char* values_ = nullptr;
    const float* vectors_ = nullptr;
    std::vector<float> own_vectors_;
    std::shared_ptr<Pages> pages_;
    std::shared_ptr<void> owner_;
};

// Begins to load what `lora_expand` reads for outputs [begin, end). Always inlined, because GCC takes a function that only
// prefetches for one that does nothing, and drops the call.
inline __attribute__((always_inline)) void prefetch_expand(const LoraPart& part, int64_t begin, int64_t end) {
    const int64_t size = part.rank * part.size;  // bytes per output
    const char* values = (const char*)part.bt;
    for (int64_t at = begin * size; at < end * size; at += 64) __builtin_prefetch(values + at);
}

}  // namespace intaglio
