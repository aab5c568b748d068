// A pool that shares a range of independent pieces between threads.
//
// The caller works too, so `threads` counts it. Workers spin for a few microseconds after a job, because the next one usually
// follows at once, and then sleep, so that an idle engine costs nothing and the API process gets the cores it needs.
// Pieces are handed out as they are asked for, to workers from the front and to the caller from the back; a piece's result
// does not depend on which thread computes it. The caller does not wait for a worker that has not begun when all pieces are
// taken: on a busy machine it may not get a core for milliseconds.
//
// Between two jobs the memory would be idle while the caller works alone. So a waiting worker reads ahead the memory that the
// caller names, from its front, where the worker's own pieces will be.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace intaglio {

class ThreadPool {
public:
    // Throws std::system_error if the system refuses a thread.
    explicit ThreadPool(int threads) {
        try {
            for (int i = 1; i < threads; i++) workers_.emplace_back([this, i] { work(i); });
        } catch (...) {
            stop();
            throw;
        }
    }

    ~ThreadPool() { stop(); }

    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int threads() const { return (int)workers_.size() + 1; }

    // Calls f(begin, end, thread) until [0, pieces) is covered, `grain` pieces at a time. Returns when all are done.
    template <class Function>
    void run(int64_t pieces, int64_t grain, const Function& f) {
        if (pieces <= 0) return;
        if (workers_.empty() || pieces <= grain) {
            f(int64_t{0}, pieces, 0);
            return;
        }
        job_ = [&f](int64_t begin, int64_t end, int thread) { f(begin, end, thread); };
        pieces_ = pieces;
        grain_ = grain;
        untaken_.store((pieces + grain - 1) / grain, std::memory_order_relaxed);
        inside_.store(0, std::memory_order_release);
        epoch_.fetch_add(1, std::memory_order_release);
        epoch_.notify_all();
        while (take_piece(0)) {
        }
        inside_.fetch_or(kClosed, std::memory_order_acq_rel);
        for (int spin = 0; inside_.load(std::memory_order_acquire) != kClosed; spin++)
            spin < kSpins ? pause() : std::this_thread::yield();
    }

    // Names the memory that the next job starts with, for waiting workers to read ahead.
    void read_ahead(const void* begin, int64_t bytes) {
        ahead_end_.store(0, std::memory_order_relaxed);
        ahead_.store((intptr_t)begin, std::memory_order_relaxed);
        ahead_end_.store((intptr_t)begin + bytes, std::memory_order_relaxed);
    }

private:
    void stop() {
        stopping_ = true;
        epoch_.fetch_add(1, std::memory_order_release);
        epoch_.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }

    // Joins the current job; false if it is over. Its pieces and function stay valid while any thread is inside.
    bool enter() {
        int count = inside_.load(std::memory_order_relaxed);
        while (!(count & kClosed))
            if (inside_.compare_exchange_weak(count, count + 1, std::memory_order_acq_rel)) return true;
        return false;
    }

    // Takes one grain of pieces and computes it; false if none is left. The grains left are [front, back), in one word. A job
    // that throws ends the process, because the other threads would go on with memory that is no longer valid.
    bool take_piece(int thread) noexcept {
        uint64_t untaken = untaken_.load(std::memory_order_relaxed);
        uint64_t front, back;
        do {
            front = untaken >> 32, back = untaken & 0xffffffff;
            if (front >= back) return false;
        } while (!untaken_.compare_exchange_weak(untaken, thread ? untaken + (uint64_t{1} << 32) : untaken - 1,
                                                 std::memory_order_relaxed));
        const int64_t begin = (int64_t)(thread ? front : back - 1) * grain_;
        job_(begin, std::min(begin + grain_, pieces_), thread);
        return true;
    }

    // Reads ahead one page; false if none is left. A stale address does no harm: a prefetch never faults.
    bool read_page() {
        intptr_t page = ahead_.load(std::memory_order_relaxed);
        if (page >= ahead_end_.load(std::memory_order_relaxed)) return false;
        if (!ahead_.compare_exchange_strong(page, page + kPage, std::memory_order_relaxed)) return true;
        for (int at = 0; at < kPage; at += 64) __builtin_prefetch((const void*)(page + at), 0, 2);
        return true;
    }

    void work(int thread) {
        uint32_t seen = 0;
        for (;;) {
            uint32_t now = epoch_.load(std::memory_order_acquire);
            for (int spin = 0; now == seen && spin < kSpins; spin++) {
                if (!read_page()) pause();
                now = epoch_.load(std::memory_order_acquire);
            }
            if (now == seen) {
                epoch_.wait(seen, std::memory_order_acquire);
                continue;
            }
            seen = now;
            if (stopping_) return;
            if (!enter()) continue;
            while (take_piece(thread)) {
            }
            inside_.fetch_sub(1, std::memory_order_release);
        }
    }

    static constexpr int kSpins = 2000;  // some tens of microseconds
    static constexpr int kClosed = 1 << 30;
    static constexpr int kPage = 4096;  // bytes
    std::vector<std::thread> workers_;
    std::function<void(int64_t, int64_t, int)> job_;
    int64_t pieces_ = 0, grain_ = 1;
    std::atomic<uint64_t> untaken_{0};
    std::atomic<intptr_t> ahead_{0}, ahead_end_{0};
    std::atomic<int> inside_{kClosed};  // how many workers are in the job, and kClosed when it is over
    std::atomic<uint32_t> epoch_{0};
    std::atomic<bool> stopping_{false};
};

}  // namespace intaglio
