// An adapter's matrices in memory, as the kernels read them.
#pragma once

#include <sys/mman.h>

#include <cstring>
#include <memory>
#include <new>
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

// One adapter: per call of `linears` in a forward one part per weight matrix, in one piece of memory, in the order in which
// a forward reads it: of each call the As, then the Bs.
class LoraWeights {
public:
    // calls: parts with A and Bt row by row and their scales, which are copied; into `spare`, if it is large enough and not half empty then.
    explicit LoraWeights(std::vector<std::vector<LoraPart>> calls, std::shared_ptr<Pages> spare)
        : calls_(std::move(calls)), pages_(std::move(spare)) {
        const int64_t needed = bytes();
        if (!pages_ || pages_->size() < needed || pages_->size() > 2 * needed + kLargePage)
            pages_ = std::make_shared<Pages>(needed);
        int64_t ranks = 0;
        for (const auto& parts : calls_)
            for (const LoraPart& part : parts) ranks += part.rank;
        scales_.reserve(ranks);  // so that what is in it stays where it is
        char* to = pages_->data();
        for (auto& parts : calls_) {
            for (LoraPart& part : parts) {
                scales_.insert(scales_.end(), part.scales, part.scales + part.rank);
                part.scales = scales_.data() + scales_.size() - part.rank;
            }
            for (LoraPart& part : parts) to = pack(part.a, part.rank, part.in, kRanks, part.size, to);
            for (LoraPart& part : parts) to = pack(part.bt, part.rank, part.out, part.rank, part.size, to);
        }
    }

    const std::vector<std::vector<LoraPart>>& calls() const { return calls_; }

    int64_t bytes() const {
        int64_t sum = 0;
        for (const auto& parts : calls_)
            for (const LoraPart& part : parts)
                sum += part.rank * (lora_width(part.in) + lora_width(part.out)) * part.size;
        return sum;
    }

private:
    static constexpr int64_t kLargePage = 1 << 21;

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

    std::vector<std::vector<LoraPart>> calls_;
    std::shared_ptr<Pages> pages_;
    std::vector<float> scales_;
};

// Begins to load what `lora_expand` reads for outputs [begin, end). Always inlined, because GCC takes a function that only
// prefetches for one that does nothing, and drops the call.
inline __attribute__((always_inline)) void prefetch_expand(const LoraPart& part, int64_t begin, int64_t end) {
    const int64_t size = part.rank * part.size;  // bytes per output
    const char* values = (const char*)part.bt;
    for (int64_t at = begin * size; at < end * size; at += 64) __builtin_prefetch(values + at);
}

}  // namespace intaglio
