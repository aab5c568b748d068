// Memory for one adapter, in large pages where the system has them.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace intaglio {

// Zeroed memory in pages of its own, which the destructor gives back to the system. Large pages where the system has them:
// with small ones a step needs thousands of address translations, which take longer than reading the data.
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

    // Makes the system provide the memory now, not at its first use.
    void touch() {
        for (int64_t at = 0; at < size(); at += kSmall) ((volatile char*)data())[at] = 0;
    }

private:
    static constexpr int64_t kSmall = 4096;       // bytes of a page, where there are no large ones
    static constexpr uintptr_t kLarge = 1 << 21;  // bytes of a large page; data() is a multiple of it
    char* start_;
    int64_t size_;
};

}  // namespace intaglio
