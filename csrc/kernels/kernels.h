// The kernels of one instruction set, as a table of functions on plain memory.
//
// kernels.cpp is compiled once per instruction set and fills one table each; dispatch.cpp picks the best that the machine
// can run. Every function computes a range of independent pieces [begin, end), so that threads can share the work; the result
// of a piece does not depend on which thread computes it or on how many pieces there are.
#pragma once

#include <algorithm>
#include <cstdint>

namespace intaglio {

constexpr int kGroup = 32;  // inputs that share one scale
constexpr int kTile = 16;   // outputs that are computed together

inline int64_t group_count(int64_t in) { return (in + kGroup - 1) / kGroup; }

enum class Format : int { f32 = 0, bf16 = 1, w8 = 2, w4 = 3, w5 = 4 };

constexpr bool is_quantized(Format format) { return format >= Format::w8; }

// Bytes of the values of one group of a tile of 16 outputs.
constexpr int64_t group_bytes(Format format) { return format == Format::w8 ? 512 : format == Format::w5 ? 320 : 256; }

// A weight matrix [out, in], packed. For w8, w4 and w5 the inputs are padded with zeros to whole groups.
//
// f32, bf16  values row by row, `in` per row
// w8         per tile of 16 outputs, per group of 32 inputs: 8 quads x 16 outputs x 4 inputs, one byte each, value + 128;
//            scales [tiles, groups, 16] half precision
// w4         the same with two quads to a byte: quad j in the low half, quad j + 4 in the high half, unsigned;
//            value = scale * q - minimum, minima like scales; or, without minima, scale * (q - 8)
// w5         w4, and after each group's 256 bytes 64 with the fifth bits: 8 bytes per quad, a bit per output and input;
//            without minima scale * (q - 16)
struct Matrix {
    Format format;
    int64_t out, in;
    const void* values;
    const uint16_t* scales;
    const uint16_t* minima;
};

inline int64_t tile_count(const Matrix& w) { return (w.out + kTile - 1) / kTile; }

// Bytes of a matrix's values.
inline int64_t value_bytes(const Matrix& w) {
    if (!is_quantized(w.format)) return w.out * w.in * (w.format == Format::f32 ? 4 : 2);
    return tile_count(w) * group_count(w.in) * group_bytes(w.format);
}

// Rows of activations for the quantized formats, in the form that an instruction set multiplies with.
//
// int8      values [rows, groups * 32] with one scale per group of 32, [rows, groups], and the groups' sums, [rows, groups].
//           A group with an infinity or a NaN has the scale NaN, so that the row's outputs are NaN, and no other row's.
// bfloat16  see amx_matmul.h; scales [rows]
struct QuantizedRows {
    int8_t* values;
    float* scales;
    int32_t* sums;
};

// One adapter's matrices for one weight matrix: A [rank, in] and transposed B [rank, out], with their scales, bias and gain; see
// LoraPair in src/intaglio/ops/adapters.py. Rank 0 if the adapter does not change the matrix.
//
// Packed, inputs and outputs are padded with zeros to multiples of sixteen:
//
// a    per block of 4 ranks (the last one may have fewer): [in / 16][ranks][16]
// bt   [out / 16][rank][16]
struct LoraPair {
    const void *a, *bt;
    int64_t rank, in, out;
    const float* scales;  // [rank]
    int64_t size;         // bytes of a value: 4 float, 2 half precision, 1 int8
    const float* bias;    // [out], or null
    const float* gain;    // [out], or null: the factor on the sum of base and adapter (DoRA)
};

constexpr int kRanks = 4;  // ranks that are shrunk together

inline int64_t lora_width(int64_t width) { return (width + 15) / 16 * 16; }

// One sequence's part of a step's attention; see AttentionRow in src/intaglio/ops/attention.py.
struct AttentionRow {
    int32_t start, stop, context, first_key;
    const int32_t* blocks;
};

// How the cache holds keys and values. int8: x = scale * q, with a scale for each 32 numbers of a key, since a few of its numbers are
// much larger than the others, and one for all numbers of a value.
enum class KVFormat : int { f32 = 0, bf16 = 1, int8 = 2 };

constexpr int64_t value_bytes(KVFormat format) { return format == KVFormat::f32 ? 4 : format == KVFormat::bf16 ? 2 : 1; }

// The keys or the values of one layer: [num_blocks, block_size, kv_heads, dim], and the scales of each head.
struct CachedLayer {
    void* data;
    float* scales;       // [num_blocks, block_size, kv_heads, groups]; null unless int8
    int32_t group_size;  // numbers that share a scale: kGroup for keys, dim for values
};

struct Attention {
    const float* q;  // [tokens, heads, dim]
    float* out;      // [tokens, heads, dim]
    CachedLayer keys, values;
    KVFormat format;
    int32_t heads, kv_heads, dim, block_size;
    int32_t window;        // 0: none
    float scale, softcap;  // softcap 0: none
    int32_t tokens;        // query tokens of a sequence that are computed together
};

constexpr int kQueries = 32;  // (token, head) pairs that are computed together at most

// Floats of attention's scratch memory that one query needs for its scores (the last store may exceed them), and for a vector
// of `dim` (one cache line more, so that the vectors of many queries do not compete for the same few lines).
inline int64_t score_width(int64_t keys) { return (keys + 15) / 16 * 16 + 16; }
inline int64_t vector_width(int64_t dim) { return (dim + 15) / 16 * 16 + 16; }

// Floats of scratch memory for contexts up to `longest`: for one piece's queries, and for alignment to a cache line.
inline int64_t attention_scratch(const Attention& a, int64_t longest) {
    const int64_t keys = a.window ? std::min<int64_t>(longest, (int64_t)a.window + a.tokens) : longest;
    return a.heads / a.kv_heads * a.tokens * (score_width(keys) + 2 * vector_width(a.dim)) + 16;
}

struct Kernels {
    const char* name;

    // Bytes of the values of QuantizedRows.
    int64_t (*quantized_size)(int64_t rows, int64_t in);
    // Converts float rows [rows, in] for the quantized formats; pieces are rows.
    void (*quantize_rows)(const float* x, int64_t in, const QuantizedRows& to, int64_t begin, int64_t end);
    // y[rows, out] = x . Wt; pieces are tiles of 16 outputs. x is used by f32 and bf16, quantized by the others.
    void (*matmul)(const Matrix& w, const float* x, const QuantizedRows& quantized, int64_t rows, float* y, int64_t ldy,
                   int64_t begin, int64_t end);
    // v[row, j] = x[row] . a[j] * scales[j] for rows [0, rows); pieces are blocks of 4 ranks.
    void (*lora_shrink)(const float* x, int64_t rows, const LoraPair& pair, float* v, int64_t begin, int64_t end);
    // y[row, o] += sum over j of v[row, j] * bt[j, o] for outputs [begin, end); begin is a multiple of 16.
    void (*lora_expand)(const float* v, int64_t rows, const LoraPair& pair, float* y, int64_t ldy, int64_t begin, int64_t end);
    // v[row, j] = a[j, ids[row]] * scales[j] * factor: the shrink of a row that is all zeros but for a one at its id.
    void (*lora_lookup)(const LoraPair& pair, const int32_t* ids, int64_t rows, float factor, float* v);
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
    // Writes heads [count, dim] into the cache, from head `first` of the layer on.
    void (*store_heads)(const float* x, int64_t count, int32_t dim, KVFormat format, const CachedLayer& to, int64_t first);
    // gelu(gate) * up; pieces are elements.
    void (*gelu_gate)(const float* gate, const float* up, float* out, int64_t begin, int64_t end);
    // Attention of one sequence's queries; pieces are (`tokens` query tokens, kv head) pairs: the first tokens with each of
    // the kv heads, then the next. scratch holds attention_scratch floats.
    void (*attention)(const Attention& args, const AttentionRow& row, float* scratch, int64_t begin, int64_t end);
    // cap * tanh(x / cap) in place; pieces are elements.
    void (*softcap)(float* x, float cap, int64_t begin, int64_t end);
    // Returns the first index of the largest of x[0 ... n), and its value in `best`; NaN if x has one.
    int64_t (*argmax)(const float* x, int64_t n, float* best);
    // p = exp((x - shift) * factor); returns the sum in double, taken in the order of the elements by 16 lanes.
    double (*exponentials)(const float* x, int64_t n, float shift, float factor, float* p);
};

// The table for this machine, or a named one: "amx", "avx512vnni", "avx2", "neon", "plain". nullptr if it cannot run here.
const Kernels* find_kernels(const char* name);

}  // namespace intaglio
