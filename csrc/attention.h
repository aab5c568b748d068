// Attention of a step's queries over paged keys and values.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace intaglio::ISA {

inline void softcap(float* x, float cap, int64_t begin, int64_t end) {
    by_sixteen(x, begin, end,
               [&](int64_t i, int64_t n) { return broadcast(cap) * tanh(load_some(x + i, n) / broadcast(cap)); });
}

// Scores of up to 4 heads against one key at a time; then softmax; then the values, key by key in order.
template <int H>
void attend(const Attention& a, const AttentionRow& row, int64_t token, int64_t kv_head, int64_t head, float* scratch) {
    const int64_t position = row.context - (row.stop - token);
    const int64_t first = a.window && position - a.window + 1 > 0 ? position - a.window + 1 : 0;
    const int64_t count = position + 1 - first, stride = (int64_t)a.kv_heads * a.dim, whole = a.dim / 16 * 16;
    const float* q = a.q + (token * a.heads + head) * a.dim;
    auto at = [&](int64_t key) {
        const int64_t offset = key - row.first_key;
        return ((int64_t)row.blocks[offset / a.block_size] * a.block_size + offset % a.block_size) * stride +
               kv_head * a.dim;
    };
    float largest[H];
    for (int h = 0; h < H; h++) largest[h] = -INFINITY;
    for (int64_t j = 0; j < count; j++) {
        const float* key = a.keys + at(first + j);
        V16 acc[H];
        for (int h = 0; h < H; h++) acc[h] = V16{};
        for (int64_t i = 0; i < whole; i += 16) {
            const V16 part = load(key + i);
            for (int h = 0; h < H; h++) acc[h] = fma(load(q + h * a.dim + i), part, acc[h]);
        }
        for (int h = 0; h < H; h++) {
            float score = sum(acc[h]);
            for (int64_t i = whole; i < a.dim; i++) score += q[h * a.dim + i] * key[i];
            scratch[h * count + j] = score * a.scale;
        }
    }
    float total[H];
    for (int h = 0; h < H; h++) {
        float* scores = scratch + h * count;
        if (a.softcap > 0) softcap(scores, a.softcap, 0, count);
        for (int64_t j = 0; j < count; j++) largest[h] = scores[j] > largest[h] ? scores[j] : largest[h];
        by_sixteen(scores, 0, count,
                   [&](int64_t i, int64_t n) { return exp(load_some(scores + i, n) - broadcast(largest[h])); });
        V16 lanes{};
        int64_t j = 0;
        for (; j + 16 <= count; j += 16) lanes = lanes + load(scores + j);
        total[h] = sum(lanes);
        for (; j < count; j++) total[h] += scores[j];
    }
    float* out = a.out + (token * a.heads + head) * a.dim;
    for (int64_t i = 0; i < whole; i += 64) {
        const int parts = whole - i < 64 ? (int)((whole - i) / 16) : 4;
        V16 acc[H][4];
        for (int h = 0; h < H; h++)
            for (int p = 0; p < 4; p++) acc[h][p] = V16{};
        for (int64_t j = 0; j < count; j++) {
            const float* value = a.values + at(first + j) + i;
            for (int p = 0; p < parts; p++) {
                const V16 part = load(value + p * 16);
                for (int h = 0; h < H; h++) acc[h][p] = fma(broadcast(scratch[h * count + j]), part, acc[h][p]);
            }
        }
        for (int h = 0; h < H; h++)
            for (int p = 0; p < parts; p++) store(out + h * a.dim + i + p * 16, acc[h][p] / broadcast(total[h]));
    }
    for (int64_t i = whole; i < a.dim; i++)
        for (int h = 0; h < H; h++) {
            float acc = 0;
            for (int64_t j = 0; j < count; j++) acc += scratch[h * count + j] * a.values[at(first + j) + i];
            out[h * a.dim + i] = acc / total[h];
        }
}

inline void attention(const Attention& a, const AttentionRow& row, float* scratch, int64_t begin, int64_t end) {
    const int64_t sharing = a.heads / a.kv_heads;
    for (int64_t piece = begin; piece < end; piece++) {
        const int64_t token = row.start + piece / a.kv_heads, kv_head = piece % a.kv_heads;
        int64_t head = kv_head * sharing;
        const int64_t stop = head + sharing;
        for (; head + 4 <= stop; head += 4) attend<4>(a, row, token, kv_head, head, scratch);
        for (; head + 2 <= stop; head += 2) attend<2>(a, row, token, kv_head, head, scratch);
        for (; head < stop; head++) attend<1>(a, row, token, kv_head, head, scratch);
    }
}

}  // namespace intaglio::ISA
