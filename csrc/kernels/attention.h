// Attention of a step's queries over paged keys and values.
//
// A piece is a few tokens of one sequence times the heads that share one key and value head; each of these (token, head)
// pairs is a query here. Four queries are multiplied with several keys at a time, so that each load serves many products:
//
//     scores   16 dot products at once: sixteen lanes each, then one tree that folds all of them (`sums_of_lanes`)
//     weigh    per query: the largest score, the exponentials, their sum; times the values' scales, if they have any
//     mix      four queries times 64 dims of the values at once, key by key in order
//
// A query's result does not depend on the other queries, on its tile or on where keys are split into spans:
// a score is one sum over the dims in every path; the sum of the exponentials starts at the query's own first key;
// and the weighted sum of the values adds the query's keys in order, and is stored in memory where a span ends. Scores of
// keys that a query does not see may be computed, but are never read: a NaN there stays there.
//
// Keys and values may be stored in fewer bits (`Stored`); they are widened as they are loaded, in registers.
#pragma once

#include <algorithm>

#include "kernels/cache_values.h"
#include "kernels/kernels.h"
#include "kernels/lane_sums.h"
#include "kernels/simd.h"

namespace intaglio::ISA {

constexpr int kSpan = 32;   // keys that are used for all queries of a piece before the next keys, to stay in the nearest cache
constexpr int kStrip = 64;  // dims of the values, for the same reason

inline void softcap(float* x, float cap, int64_t begin, int64_t end) {
    by_sixteen(x, begin, end,
               [&](int64_t i, int64_t n) { return broadcast(cap) * tanh(load_some(x + i, n) / broadcast(cap)); });
}

// ------------------------------------------------------------------------------------------------------------- a piece

// One token and head. It sees the keys [first, stop). Its vectors lie in scratch memory, where they do not straddle cache lines;
// dims are padded with zeros.
struct Query {
    float* q;       // [dim]
    float* sums;    // [dim], of the weighted values
    float* scores;  // of the piece's keys
    float* out;     // [dim], where the result goes
    int64_t first, stop;
};

// The queries of a piece, token by token, and the keys that any of them sees: no query begins or stops before the one ahead.
struct Piece {
    const Attention& a;
    const AttentionRow& row;
    int64_t kv_head, count;
    int64_t begin, end;
    Query queries[kQueries];

    Piece(const Attention& a_, const AttentionRow& row_, int64_t token, int64_t tokens, int64_t head, int64_t heads,
          float* scratch)
        : a(a_), row(row_), kv_head(head / (a.heads / a.kv_heads)), count(tokens * heads) {
        const int64_t last = row.context - row.stop + token + tokens;
        begin = a.window ? std::max<int64_t>(0, last - tokens + 1 - a.window) : 0, end = last;
        const int64_t vector = vector_width(a.dim), width = score_width(end - begin);
        for (int64_t n = 0; n < count; n++, scratch += 2 * vector + width) {
            const int64_t at = ((token + n / heads) * a.heads + head + n % heads) * a.dim;
            const int64_t stop = last - tokens + 1 + n / heads;
            std::memset(scratch, 0, 2 * vector * sizeof(float));
            std::memcpy(scratch, a.q + at, a.dim * sizeof(float));
            queries[n] = {scratch,
                          scratch + vector,
                          scratch + 2 * vector,
                          a.out + at,
                          a.window ? std::max<int64_t>(0, stop - a.window) : 0,
                          stop};
        }
    }
};

// Where up to kSpan keys and their values are in the cache: the indices of their heads, and their offsets in numbers.
struct Span {
    int64_t begin, end;
    int64_t heads[kSpan], offsets[kSpan];

    Span(const Piece& piece, int64_t begin_) : begin(begin_), end(std::min<int64_t>(piece.end, begin_ + kSpan)) {
        const Attention& a = piece.a;
        const int64_t held = begin - piece.row.first_key;
        int64_t index = held / a.block_size, slot = held % a.block_size;
        for (int64_t i = 0; i < end - begin; i++) {
            heads[i] = ((int64_t)piece.row.blocks[index] * a.block_size + slot) * a.kv_heads + piece.kv_head;
            offsets[i] = heads[i] * a.dim;
            if (++slot == a.block_size) slot = 0, index++;
        }
    }
};

// -------------------------------------------------------------------------------------------------------------- scores

// A cached key: numbers from `d` on, a multiple of kLanes, with their scale.
template <class Stored>
struct Key {
    const Stored* data;
    const float* scales;  // null unless int8

    INTAGLIO_INLINE Floats at(int64_t d) const { return scaled(load_widened(data + d), d); }
    INTAGLIO_INLINE Floats some_at(int64_t d, int64_t count) const { return scaled(load_some_widened(data + d, count), d); }

private:
    INTAGLIO_INLINE Floats scaled(Floats x, int64_t d) const {
        if constexpr (has_scales<Stored>)
            return x * every(scales[d / kGroup]);
        else
            return x;
    }
};

// The dot products of Q queries and kSums / Q keys: sums[query][key].
template <int Q, class Stored>
INTAGLIO_INLINE void dot_tile(const float* const* q, const Key<Stored>* keys, int64_t dim, float* sums) {
    constexpr int K = kSums / Q;
    const int64_t whole = dim / 16 * 16;
    Floats parts[kParts][kSums];
    for (int p = 0; p < kParts; p++) {
        Floats acc[Q][K] = {};
        if (const int64_t d = whole + p * kLanes; d < dim)
            for (int j = 0; j < K; j++) {
                const Floats key = keys[j].some_at(d, dim - d);
                for (int i = 0; i < Q; i++) acc[i][j] = fma(load_part(q[i] + d), key, acc[i][j]);
            }
        for (int64_t d = p * kLanes; d < whole; d += 16) {
            Floats key[K];
            for (int j = 0; j < K; j++) key[j] = keys[j].at(d);
            for (int i = 0; i < Q; i++) {
                const Floats part = load_part(q[i] + d);
                for (int j = 0; j < K; j++) acc[i][j] = fma(part, key[j], acc[i][j]);
            }
        }
        for (int i = 0; i < Q; i++)
            for (int j = 0; j < K; j++) parts[p][i * K + j] = acc[i][j];
    }
    fold_all(parts, sums);
}

// Scores of `count` queries, count <= Q, for the keys of the span that any of them sees. If fewer queries or keys are left than
// the tile has, the last one is repeated.
template <int Q, class Stored>
void score_tile(const Piece& piece, const Span& span, const Query* queries, int64_t count) {
    constexpr int K = kSums / Q;
    const int64_t begin = std::max(span.begin, queries[0].first), end = std::min(span.end, queries[count - 1].stop);
    const float* q[Q];
    float* scores[Q];
    const CachedLayer& cached = piece.a.keys;
    const int64_t groups = group_count(piece.a.dim);
    for (int i = 0; i < Q; i++) {
        const Query& query = queries[std::min<int64_t>(i, count - 1)];
        q[i] = query.q;
        scores[i] = query.scores + (begin - piece.begin);
    }
    for (int64_t key = begin; key < end; key += K) {
        Key<Stored> keys[K];
        for (int j = 0; j < K; j++) {
            const int64_t at = std::min(key + j, end - 1) - span.begin;
            keys[j].data = (const Stored*)cached.data + span.offsets[at];
            keys[j].scales = has_scales<Stored> ? cached.scales + span.heads[at] * groups : nullptr;
        }
        float sums[kSums];
        dot_tile<Q>(q, keys, piece.a.dim, sums);
        for (float& x : sums) x *= piece.a.scale;
        // Past the last key this writes scores that the next span overwrites or that are never read.
        for (int i = 0; i < Q; i++) {
            std::memcpy(scores[i], sums + i * K, K * sizeof(float));
            scores[i] += K;
        }
    }
}

template <class Stored>
inline void score(const Piece& piece) {
    for (int64_t begin = piece.begin; begin < piece.end; begin += kSpan) {
        const Span span(piece, begin);
        const Query* queries = piece.queries;
        int64_t left = piece.count;
        for (; left > 2; queries += 4, left -= 4) score_tile<4, Stored>(piece, span, queries, std::min<int64_t>(4, left));
        if (left == 2) score_tile<2, Stored>(piece, span, queries, 2);
        if (left == 1) score_tile<1, Stored>(piece, span, queries, 1);
    }
}

// -------------------------------------------------------------------------------------------------------------- softmax

// exp(x - largest x) in place. Returns their sum, taken over sixteen lanes from the first one on.
inline float weigh(float* x, int64_t count, float cap) {
    if (cap > 0) softcap(x, cap, 0, count);
    V16 lanes = broadcast(-INFINITY);
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) lanes = maximum(load(x + i), lanes);
    float largest = max(lanes);
    for (; i < count; i++) largest = x[i] > largest ? x[i] : largest;
    V16 total{};
    by_sixteen(x, 0, count, [&](int64_t at, int64_t left) {
        const V16 weights = exp(load_some(x + at, left) - broadcast(largest));
        if (left >= 16) {
            total = total + weights;
        } else {
            float some[16];
            store(some, weights);
            total = total + load_some(some, left);
        }
        return weights;
    });
    return sum(total);
}

// --------------------------------------------------------------------------------------------------------------- values

// sums[i] += weights[i][k] * value k, key by key, for Q queries and D vectors of dims; with D = 1 the dims may be fewer than a
// vector. Not inlined: compilers then keep the sums in registers.
template <int Q, int D, class Stored>
__attribute__((noinline)) void mix_dims(float* const* sums, const float* const* weights, const Stored* values,
                                        const int64_t* offsets, int64_t count, int64_t dims) {
    Floats acc[Q][D];
    const float* weight[Q];
    float* sum[Q];
    for (int i = 0; i < Q; i++) {
        weight[i] = weights[i], sum[i] = sums[i];
        for (int d = 0; d < D; d++) acc[i][d] = load_part(sum[i] + d * kLanes);
    }
    int64_t k = 0;
    do {  // there is always a first key; with a loop that may run zero times compilers spill all sums
        const Stored* value = values + offsets[k];
        Floats part[D];
        if (D == 1 && dims < kLanes)
            part[0] = load_some_widened(value, dims);
        else
            for (int d = 0; d < D; d++) part[d] = load_widened(value + d * kLanes);
        for (int i = 0; i < Q; i++) {
            const Floats factor = every(weight[i][k]);
            for (int d = 0; d < D; d++) acc[i][d] = fma(factor, part[d], acc[i][d]);
        }
    } while (++k < count);
    for (int i = 0; i < Q; i++)
        for (int d = 0; d < D; d++) store_part(sum[i] + d * kLanes, acc[i][d]);
}

// Adds the values of the keys [begin, end), which all Q queries see, to dims [from, to) of their sums.
template <int Q, class Stored>
inline void mix_keys(const Piece& piece, const Span& span, const Query* queries, int64_t begin, int64_t end, int64_t from,
                     int64_t to) {
    constexpr int D = kSums / Q;
    if (begin >= end) return;
    const int64_t *offsets = span.offsets + (begin - span.begin), count = end - begin;
    const Stored* const values = (const Stored*)piece.a.values.data;
    const float* weights[Q];
    float* sums[Q];
    for (int i = 0; i < Q; i++) {
        weights[i] = queries[i].scores + (begin - piece.begin);
        sums[i] = queries[i].sums + from;
    }
    auto advance = [&](int64_t dims) {
        from += dims;
        for (int i = 0; i < Q; i++) sums[i] += dims;
    };
    for (; from + D * kLanes <= to; advance(D * kLanes))
        mix_dims<Q, D>(sums, weights, values + from, offsets, count, D * kLanes);
    for (; from < to; advance(kLanes)) mix_dims<Q, 1>(sums, weights, values + from, offsets, count, to - from);
}

// Dims [from, to) of Q queries: keys that all of them see are computed together, keys before and after these for each query alone.
template <int Q, class Stored>
inline void mix_tile(const Piece& piece, const Span& span, const Query* queries, int64_t from, int64_t to) {
    const int64_t end = std::max(span.begin, std::min(span.end, queries[0].stop));
    const int64_t begin = std::min(end, std::max(span.begin, queries[Q - 1].first));
    for (int i = 0; i < Q; i++)
        mix_keys<1, Stored>(piece, span, queries + i, std::max(span.begin, queries[i].first), begin, from, to);
    mix_keys<Q, Stored>(piece, span, queries, begin, end, from, to);
    for (int i = 0; i < Q; i++)
        mix_keys<1, Stored>(piece, span, queries + i, std::max(end, queries[i].first), std::min(span.end, queries[i].stop),
                            from, to);
}

// Multiplies each weight of the queries by the scale of the key's value.
inline void apply_value_scales(const Piece& piece) {
    for (int64_t begin = piece.begin; begin < piece.end; begin += kSpan) {
        const Span span(piece, begin);
        for (const Query* query = piece.queries; query < piece.queries + piece.count; query++)
            for (int64_t key = std::max(span.begin, query->first); key < std::min(span.end, query->stop); key++)
                query->scores[key - piece.begin] *= piece.a.values.scales[span.heads[key - span.begin]];
    }
}

template <class Stored>
inline void mix(const Piece& piece) {
    const int64_t dim = piece.a.dim, strip = piece.count > 4 ? kStrip : dim;
    for (int64_t begin = piece.begin; begin < piece.end; begin += kSpan) {
        const Span span(piece, begin);
        for (int64_t from = 0; from < dim; from += strip) {
            const int64_t to = std::min(dim, from + strip);
            const Query *queries = piece.queries, *end = queries + piece.count;
            for (; queries + 4 <= end; queries += 4) mix_tile<4, Stored>(piece, span, queries, from, to);
            for (; queries + 2 <= end; queries += 2) mix_tile<2, Stored>(piece, span, queries, from, to);
            for (; queries < end; queries++) mix_tile<1, Stored>(piece, span, queries, from, to);
        }
    }
}

template <class Stored>
inline void attend(const Piece& piece) {
    float totals[kQueries];
    score<Stored>(piece);
    for (int64_t n = 0; n < piece.count; n++) {
        const Query& query = piece.queries[n];
        totals[n] = weigh(query.scores + (query.first - piece.begin), query.stop - query.first, piece.a.softcap);
    }
    if (has_scales<Stored>) apply_value_scales(piece);
    mix<Stored>(piece);
    for (int64_t n = 0; n < piece.count; n++) {
        const float* sums = piece.queries[n].sums;
        const V16 inverse = broadcast(1.0f / totals[n]);
        by_sixteen(piece.queries[n].out, 0, piece.a.dim, [&](int64_t i, int64_t) { return load(sums + i) * inverse; });
    }
}

template <class Stored>
void attention_of(const Attention& a, const AttentionRow& row, float* scratch, int64_t begin, int64_t end) {
    const int64_t sharing = a.heads / a.kv_heads;
    scratch += -((uintptr_t)scratch / sizeof(float)) % 16;
    for (int64_t i = begin; i < end; i++) {
        const int64_t token = row.start + i / a.kv_heads * a.tokens, tokens = std::min<int64_t>(a.tokens, row.stop - token);
        const int64_t first = i % a.kv_heads * sharing;
        for (int64_t head = 0; head < sharing; head += kQueries)  // more only if there is one token
            attend<Stored>(Piece(a, row, token, tokens, first + head, std::min<int64_t>(kQueries, sharing - head), scratch));
    }
}

inline void attention(const Attention& a, const AttentionRow& row, float* scratch, int64_t begin, int64_t end) {
    switch (a.format) {
        case KVFormat::f32: return attention_of<float>(a, row, scratch, begin, end);
        case KVFormat::bf16: return attention_of<Bfloat>(a, row, scratch, begin, end);
        case KVFormat::int8: return attention_of<int8_t>(a, row, scratch, begin, end);
    }
}

}  // namespace intaglio::ISA
