// Which kernels this machine can run. The instruction sets were decided when the library was compiled; one of them is chosen
// here, at run time, so that one build serves every machine of its family.
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(INTAGLIO_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "kernels/kernels.h"

namespace intaglio {

#if defined(INTAGLIO_AMX)
namespace amx {
extern const Kernels kernels;
}
#endif
#if defined(__x86_64__)
namespace avx512vnni {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
#elif defined(__aarch64__)
namespace neon {
extern const Kernels kernels;
}
#endif
namespace plain {
extern const Kernels kernels;
}

namespace {

#if defined(__x86_64__)
// CPUID is asked here and below, because compilers differ in which features __builtin_cpu_supports knows.
bool has_f16c() {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & 1u << 29);
}
#endif

#if defined(INTAGLIO_AMX)
// Tile registers are large, and the kernel saves them only for processes that asked for them.
bool amx_usable() {
    constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    constexpr unsigned kTileAndBfloat = 1u << 24 | 1u << 22, kHalf = 1u << 23, kBfloat = 1u << 5;
    unsigned eax, ebx, ecx, edx, more;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & (kTileAndBfloat | kHalf)) == (kTileAndBfloat | kHalf) &&
           __get_cpuid_count(7, 1, &more, &ebx, &ecx, &edx) && (more & kBfloat) &&
           syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

struct Candidate {
    const Kernels* kernels;
    bool usable;
};

// Best first.
int candidates(Candidate* out) {
    int count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2_usable = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    const bool avx512_usable = avx2_usable && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                               __builtin_cpu_supports("avx512vnni");
#if defined(INTAGLIO_AMX)
    out[count++] = {&amx::kernels, avx512_usable && amx_usable()};
#endif
    out[count++] = {&avx512vnni::kernels, avx512_usable};
    out[count++] = {&avx2::kernels, avx2_usable};
#elif defined(__aarch64__)
#if defined(__linux__)
    const bool dot_product = getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
    const bool dot_product = true;  // every Apple core since 2018
#endif
    out[count++] = {&neon::kernels, dot_product};
#endif
    out[count++] = {&plain::kernels, true};
    return count;
}

}  // namespace

const Kernels* find_kernels(const char* name) {
    Candidate all[5];
    const int count = candidates(all);
    for (int i = 0; i < count; i++)
        if (all[i].usable && (name == nullptr || std::strcmp(all[i].kernels->name, name) == 0)) return all[i].kernels;
    return nullptr;
}

}  // namespace intaglio
