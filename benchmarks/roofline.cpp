// Measures the read bandwidth and the int8 dot products per second of the machine, with the given number of threads.
// Prints one line of JSON. Built by roofline.py with -O3 -march=native.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__AMX_INT8__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

using Clock = std::chrono::steady_clock;

// The least of `rounds` times until all threads are done.
static double seconds(int threads, int rounds, const std::function<void(int)>& work) {
    double best = 1e30;
    for (int round = 0; round < rounds; round++) {
        const auto begin = Clock::now();
        std::vector<std::thread> pool;
        for (int i = 0; i < threads; i++) pool.emplace_back(work, i);
        for (std::thread& thread : pool) thread.join();
        const double took = std::chrono::duration<double>(Clock::now() - begin).count();
        if (took < best) best = took;
    }
    return best;
}

static volatile uint64_t sink;

static double read_gbs(int threads) {
    typedef uint64_t V __attribute__((vector_size(64)));
    const size_t per_thread = size_t{256} << 20;
    std::vector<V> memory(per_thread * threads / sizeof(V), V{} + 1);
    const double took = seconds(threads, 7, [&](int thread) {
        const size_t count = per_thread / sizeof(V);
        const V* p = memory.data() + thread * count;
        V a{}, b{}, c{}, d{};
        for (size_t i = 0; i < count; i += 4) a += p[i], b += p[i + 1], c += p[i + 2], d += p[i + 3];
        const V all = a + b + c + d;
        sink = sink + all[0] + all[7];
    });
    return per_thread * threads / took / 1e9;
}

#if defined(__AVX512VNNI__)
static const char* dot_set = "avx512vnni";
static double dot_gmacs(int threads) {
    const int64_t steps = 20'000'000;
    const double took = seconds(threads, 5, [&](int) {
        __m512i acc[12], x = _mm512_set1_epi8(3), w = _mm512_set1_epi8(5);
        for (auto& a : acc) a = _mm512_setzero_si512();
        for (int64_t i = 0; i < steps; i++) {
            for (auto& a : acc) a = _mm512_dpbusd_epi32(a, w, x);
            asm volatile("" : "+v"(x), "+v"(w));
        }
        for (auto& a : acc) sink = sink + _mm512_reduce_add_epi32(a);
    });
    return 12.0 * 64 * steps * threads / took / 1e9;
}
#elif defined(__AVX2__)
static const char* dot_set = "avx2";
static double dot_gmacs(int threads) {
    const int64_t steps = 20'000'000;
    const double took = seconds(threads, 5, [&](int) {
        __m256i acc[8], x = _mm256_set1_epi8(3), w = _mm256_set1_epi8(5), ones = _mm256_set1_epi16(1);
        for (auto& a : acc) a = _mm256_setzero_si256();
        for (int64_t i = 0; i < steps; i++) {
            for (auto& a : acc) {
                a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), ones));
                asm volatile("" : "+x"(x), "+x"(w));
            }
        }
        for (auto& a : acc) sink = sink + _mm256_extract_epi32(a, 0);
    });
    return 8.0 * 32 * steps * threads / took / 1e9;
}
#else
static const char* dot_set = "none";
static double dot_gmacs(int) { return 0; }
#endif

#if defined(__AMX_INT8__)
// Tiles of 16 x 64 bytes; 16 * 16 * 64 products an instruction. 0 if the system does not allow tiles.
static double amx_gmacs(int threads) {
    if (syscall(SYS_arch_prctl, 0x1023, 18)) return 0;  // ARCH_REQ_XCOMP_PERM for the tile data
    const int64_t steps = 2'000'000;
    const double took = seconds(threads, 5, [&](int) {
        alignas(64) uint8_t config[64] = {1};
        for (int tile = 0; tile < 8; tile++) config[16 + tile * 2] = 64, config[48 + tile] = 16;
        asm volatile("" : : "r"(config) : "memory");  // GCC's intrinsic declares that only the first bytes are read
        _tile_loadconfig(config);
        for (int64_t i = 0; i < steps; i++) {
            _tile_dpbssd(0, 4, 6);
            _tile_dpbssd(1, 4, 7);
            _tile_dpbssd(2, 5, 6);
            _tile_dpbssd(3, 5, 7);
        }
        _tile_release();
    });
    return 4.0 * 16 * 16 * 64 * steps * threads / took / 1e9;
}
#else
static double amx_gmacs(int) { return 0; }
#endif

int main(int argc, char** argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
    std::printf("{\"read_gbs\": %.1f, \"dot_gmacs\": %.1f, \"dot_set\": \"%s\", \"amx_gmacs\": %.1f}\n", read_gbs(threads),
                dot_gmacs(threads), dot_set, amx_gmacs(threads));
}
