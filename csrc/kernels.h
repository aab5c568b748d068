// The kernels of one instruction set, as a table of functions on plain memory.
//
// kernels.cpp is compiled once per instruction set and fills one table each; dispatch.cpp picks the best that the machine
// can run. Every function computes a range of independent pieces [begin, end), so that threads can share the work; what a
// piece gives does not depend on who computes it or on how many pieces there are.
#pragma once

#include <cstddef>
#include <cstdint>

namespace intaglio {

constexpr int kGroup = 32;  // inputs that share one scale
constexpr int kTile = 16;   // outputs that are computed together

inline int64_t group_count(int64_t in) { return (in + kGroup - 1) / kGroup; }

enum class Format : int { f32 = 0, bf16 = 1, w8 = 2, w4 = 3 };

// A weight matrix [out, in], packed.
//
// f32, bf16  values row by row, `in` per row
//            (for w8 and w4 the inputs are filled up with zeros to whole groups)
// w8         per tile of 16 outputs, per group of 32 inputs: 8 quads x 16 outputs x 4 inputs, one byte each, value + 128;
//            scales [tiles, groups, 16] half precision
// w4         the same with two quads to a byte: quad j in the low half, quad j + 4 in the high half, unsigned;
//            value = scale * q - minimum; minima like scales
struct Matrix {
    Format format;
    int64_t out, in;
    const void* values;
    const uint16_t* scales;
    const uint16_t* minima;
};

// Rows of activations for the quantized formats: int8 with one scale per group of 32, and the groups' sums. A group with an
// infinity or a NaN has the scale NaN, so that it shows in the row's outputs and nowhere else.
struct QuantizedRows {
    const int8_t* values;   // [rows, groups * 32]
    const float* scales;    // [rows, groups]
    const int32_t* sums;    // [rows, groups]
};

// One sequence's part of an attention call; see AttentionRow in ops/__init__.py.
struct AttentionRow {
    int32_t start, stop, context, first_key;
    const int32_t* blocks;
};

struct Attention {
    const float* q;          // [tokens, heads, dim]
    float* out;              // [tokens, heads, dim]
    const float* keys;       // [num_blocks, block_size, kv_heads, dim]
    const float* values;
    int32_t heads, kv_heads, dim, block_size;
    int32_t window;          // 0: none
    float scale, softcap;    // softcap 0: none
};

struct Kernels {
    const char* name;

    // int8 rows from float rows [rows, in]; pieces are rows.
    void (*quantize_rows)(const float* x, int64_t in, int8_t* values, float* scales, int32_t* sums, int64_t begin,
                          int64_t end);
    // y[rows, out] = x . Wt; pieces are tiles of 16 outputs. x is used by f32 and bf16, quantized by w8 and w4.
    void (*matmul)(const Matrix& w, const float* x, const QuantizedRows& quantized, int64_t rows, float* y, int64_t ldy,
                   int64_t begin, int64_t end);
    // v[row, j] = x[row] . a[j] for rows [0, rows); pieces are the ranks j. a [rank, in] float32.
    void (*lora_shrink)(const float* x, int64_t in, int64_t rows, const float* a, float* v, int64_t rank, int64_t begin,
                        int64_t end);
    // y[row, o] += sum over j of v[row, j] * bt[j, o] for outputs [begin, end). bt [rank, out] float32.
    void (*lora_expand)(const float* v, int64_t rank, int64_t rows, const float* bt, int64_t out, float* y, int64_t ldy,
                        int64_t begin, int64_t end);
    // Rows of an embedding matrix times scale; pieces are rows of the result.
    void (*embed)(const Matrix& w, const int32_t* ids, float scale, float* y, int64_t begin, int64_t end);
    // out = x / sqrt(mean(x^2) + eps) * weight (+ residual if given); pieces are rows of `width`.
    void (*rms_norm)(const float* x, const float* weight, const float* residual, float eps, int64_t width, float* out,
                     int64_t begin, int64_t end);
    // x + y; pieces are elements.
    void (*add)(const float* x, const float* y, float* out, int64_t begin, int64_t end);
    // Rotates heads in place, norming each first if norm is given; pieces are tokens. angles [positions, dim]: per position
    // the cosines, then the sines.
    void (*rope)(float* x, const float* norm, float eps, const float* angles, const int32_t* positions, int32_t heads,
                 int32_t dim, int64_t begin, int64_t end);
    // gelu(gate) * up; pieces are elements.
    void (*gelu_gate)(const float* gate, const float* up, float* out, int64_t begin, int64_t end);
    // Attention of one query token for one group of heads; pieces are (token, kv head) pairs of one sequence.
    // scratch holds (heads / kv_heads) * context floats.
    void (*attention)(const Attention& args, const AttentionRow& row, float* scratch, int64_t begin, int64_t end);
    // cap * tanh(x / cap) in place; pieces are elements.
    void (*softcap)(float* x, float cap, int64_t begin, int64_t end);
    // The largest of x[0 ... n), and where it first stands.
    int64_t (*argmax)(const float* x, int64_t n, float* best);
    // p = exp((x - shift) * factor); returns the sum in double, taken in the order of the elements by 16 lanes.
    double (*exponentials)(const float* x, int64_t n, float shift, float factor, float* p);
};

// The table for this machine, or a named one: "avx512vnni", "avx2", "neon", "plain". nullptr if it cannot run here.
const Kernels* find_kernels(const char* name);

}  // namespace intaglio
