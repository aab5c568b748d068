// Views of the caller's arrays: addresses and sizes. Rows are contiguous.
#pragma once

#include <cstdint>

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

// The keys or the values of the layers that share one set of block tables: [layers, blocks, block_size, kv_heads, dim].
struct CacheArray {
    float* data;
    int64_t layers, blocks, block_size, kv_heads, dim;

    int64_t layer_size() const { return blocks * block_size * kv_heads * dim; }
    int64_t size() const { return layers * layer_size(); }
};

}  // namespace intaglio
