// All kernels, compiled once per instruction set: ISA names the namespace, the compiler's flags say what it may use.
//
// Two rules give every row its own fixed arithmetic, whatever else is in the batch: a sum runs over the same elements in the
// same order whether one row is computed or many, and no sum is split between threads. The products of int8 are summed in
// int32 within a group of 32, which is exact, so there the order does not even matter.
//
// Only this file includes the headers below; they divide it into readable parts.
#include "kernels/attention.h"
#include "kernels/cache_values.h"
#include "kernels/kernels.h"
#include "kernels/logits.h"
#include "kernels/lora.h"
#include "kernels/matmul.h"
#include "kernels/row_ops.h"
#if defined(__AMX_BF16__)
#include "kernels/amx_matmul.h"
#else
#include "kernels/quantize_rows.h"
#endif

namespace intaglio::ISA {
namespace {

void matmul(const Matrix& w, const float* x, const QuantizedRows& q, int64_t rows, float* y, int64_t ldy, int64_t begin,
            int64_t end) {
    switch (w.format) {
        case Format::f32: return matmul_format<Format::f32>(w, x, q, rows, y, ldy, begin, end);
        case Format::bf16: return matmul_format<Format::bf16>(w, x, q, rows, y, ldy, begin, end);
#if defined(__AMX_BF16__)
        default: return product_on_tiles(w, q, rows, y, ldy, begin, end);
#else
        case Format::w8: return matmul_format<Format::w8>(w, x, q, rows, y, ldy, begin, end);
        case Format::w5:
            return w.minima ? matmul_format<Format::w5, true>(w, x, q, rows, y, ldy, begin, end)
                            : matmul_format<Format::w5, false>(w, x, q, rows, y, ldy, begin, end);
        case Format::w4:
            return w.minima ? matmul_format<Format::w4, true>(w, x, q, rows, y, ldy, begin, end)
                            : matmul_format<Format::w4, false>(w, x, q, rows, y, ldy, begin, end);
#endif
    }
}

}  // namespace

#define INTAGLIO_STRING(x) #x
#define INTAGLIO_NAME(x) INTAGLIO_STRING(x)

extern const Kernels kernels;
const Kernels kernels = {
    INTAGLIO_NAME(ISA), quantized_size, quantize_rows, matmul, lora_shrink,  lora_expand,
    lora_lookup,        embed,          rms_norm,      add,    rope,         store_heads,
    gelu_gate,          attention,      softcap,       argmax, exponentials,
};

}  // namespace intaglio::ISA
