// Views of the caller's arrays: addresses and sizes. Rows are contiguous.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace intaglio {

template <class T>
struct Vector {
    T* data;
    int64_t size;
};

template <class T>
struct Rows {
    T* data;
    int64_t rows, width;

    bool has_shape(int64_t wanted_rows, int64_t wanted_width) const { return rows == wanted_rows && width == wanted_width; }
};

// The keys or the values of the layers that share one set of block tables: [layers, blocks, block_size, kv_heads, dim], and for
// int8 their scales [layers, blocks, block_size, kv_heads, groups].
struct CacheArray {
    void* data;
    KVFormat format;
    int64_t layers, blocks, block_size, kv_heads, dim;
    float* scales;       // null unless int8
    int64_t num_scales;  // 0 unless int8

    int64_t layer_heads() const { return blocks * block_size * kv_heads; }
    int64_t size() const { return layers * layer_heads() * dim; }

    // group_size: numbers of a head that share a scale
    CachedLayer layer(int64_t index, int64_t group_size) const {
        const int64_t head = index * layer_heads();
        return {(char*)data + head * dim * value_bytes(format), scales ? scales + head * groups(group_size) : nullptr,
                (int32_t)group_size};
    }

    bool has_scales_for(int64_t group_size) const {
        return num_scales == (format == KVFormat::int8 ? layers * layer_heads() * groups(group_size) : 0);
    }

private:
    int64_t groups(int64_t group_size) const { return (dim + group_size - 1) / group_size; }
};

}  // namespace intaglio
