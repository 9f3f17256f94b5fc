// What is done with pages: attention of new tokens to them (FlashAttention-2, arXiv:2307.08691), and what is written.
#pragma once
#include "decode.cuh"

// The keys that a tile of new tokens of one sequence sees: all up to themselves.
template <class T, int D> struct PagedKeys {
    Pages<T> pages;
    int position, count;

    __device__ int ranges() const { return 1; }
    __device__ int start(int) const { return 0; }
    __device__ int end(int) const { return position + count; }
    __device__ int query(int row) const { return position + row; }
    __device__ void load(T *key_tile, T *value_tile, int key, int valid) const {
        static_assert(Sizes<T, D>::ROWS % PAGE == 0, "tiles are whole pages");
        constexpr int WIDTH = sizeof(T) == 2 ? 8 : 1; // elements in 16 bytes, where rows are aligned
#pragma unroll 2
        for (int i = threadIdx.x; i < Sizes<T, D>::ROWS * (D / WIDTH); i += blockDim.x) {
            int row = i / (D / WIDTH), column = i % (D / WIDTH) * WIDTH, place = row * Sizes<T, D>::STEP + column;
            const T *from = nullptr;
            if (row < valid) from = pages.keys_at(key + row) + (key + row) % PAGE * D + column;
            if constexpr (WIDTH == 8) {
                uint4 keys = {0, 0, 0, 0}, values = {0, 0, 0, 0};
                if (from) {
                    keys = *reinterpret_cast<const uint4 *>(from);
                    values = *reinterpret_cast<const uint4 *>(from + pages.value_offset);
                }
                *reinterpret_cast<uint4 *>(key_tile + place) = keys;
                *reinterpret_cast<uint4 *>(value_tile + place) = values;
            } else {
                key_tile[place] = from ? *from : narrow<T>(0.0f);
                value_tile[place] = from ? from[pages.value_offset] : narrow<T>(0.0f);
            }
        }
    }
};

// New tokens of sequences in tiles. A row of `tiles` is: first row of queries, their count, position of the first, where the pages
// of the sequence begin in `table`.
template <class T, int D>
__device__ void paged_tiles(
    const T *queries, T *const *slabs, const unsigned *table, const unsigned *tiles, T *out, int heads, int kv_heads, int layers,
    int layer, int shift, float scale) {
    const unsigned *tile = tiles + blockIdx.x * 4;
    int first = tile[0], count = tile[1], position = tile[2], kv_head = blockIdx.y / (heads / kv_heads);
    Pages<T> pages(slabs, table + tile[3], shift, layers, kv_heads, D, layer, kv_head);
    PagedKeys<T, D> keys = {pages, position, count};
    attend_tile<T, D>(queries, keys, out, nullptr, first, count, heads, scale);
}

// Heads of any width, by plain loops: a warp for each token and head. `items` are those of `paged_decode`, with all positions in
// one part.
template <class T>
__device__ void paged_plain(
    const T *queries, T *const *slabs, const unsigned *table, const unsigned *items, T *out, int heads, int kv_heads, int layers,
    int layer, int shift, int dim, float scale) {
    DYNAMIC_SHARED(float, memory);
    float *query = memory, *sums = memory + dim; // every thread has columns of its own
    const unsigned *item = items + blockIdx.x * 6;
    long long place = ((long long)item[0] * heads + blockIdx.y) * dim;
    Pages<T> pages(slabs, table + item[3], shift, layers, kv_heads, dim, layer, blockIdx.y / (heads / kv_heads));
    for (int column = threadIdx.x; column < dim; column += 32) {
        query[column] = wide(queries[place + column]) * scale;
        sums[column] = 0.0f;
    }
    float top = -INFINITE, weight = 0.0f;
    for (int key = item[1]; key < static_cast<int>(item[2]); key++) {
        const T *keys = pages.keys_at(key) + key % PAGE * dim;
        float product = 0.0f;
        for (int column = threadIdx.x; column < dim; column += 32) product += wide(keys[column]) * query[column];
        product = warp_sum(product);
        float highest = fmaxf(top, product), factor = __expf(top - highest), own = __expf(product - highest);
        for (int column = threadIdx.x; column < dim; column += 32) {
            sums[column] = sums[column] * factor + own * wide(keys[pages.value_offset + column]);
        }
        weight = weight * factor + own;
        top = highest;
    }
    for (int column = threadIdx.x; column < dim; column += 32) out[place + column] = narrow<T>(sums[column] / weight);
}

// Adds biases, turns queries and keys to their positions, and writes keys and values to their pages; a block for each row. A row of
// `places` is: position, page times `PAGE` and place in the page, count of places behind it that are zeroed. `cosines` and `sines`
// are [positions, dim / 2], biases [heads, dim]. If they are joined, rows are those of `queries`, with keys and then values behind the
// queries.
template <class T>
__device__ void paged_write(
    const T *queries, const T *keys, const T *values, const unsigned *places, const float *cosines, const float *sines,
    const T *query_bias, const T *key_bias, const T *value_bias, T *const *slabs, T *turned, int heads, int kv_heads, int layers,
    int layer, int shift, int half, int is_joined, int is_biased) {
    int dim = 2 * half, query_step = heads * dim, key_step = kv_heads * dim;
    if (is_joined) {
        keys = queries + query_step, values = keys + key_step;
        query_step = key_step = query_step + 2 * key_step;
    }
    const unsigned *own = places + blockIdx.x * 3;
    long long angle = (long long)own[0] * half;
    unsigned page = own[1] / PAGE, place = own[1] % PAGE, zeros = own[2];
    // Sums are rounded, as when scores are computed.
    auto sum = [&](const T *from, const T *bias, int column) {
        return is_biased ? narrow<T>(wide(from[column]) + wide(bias[column])) : from[column];
    };
    auto turn = [&](const T *from, const T *bias, T *to, int column) {
        float cosine = cosines[angle + column], sine = sines[angle + column];
        float a = wide(sum(from, bias, column)), b = wide(sum(from, bias, column + half));
        to[column] = narrow<T>(a * cosine - b * sine);
        to[column + half] = narrow<T>(b * cosine + a * sine);
    };
    const T *own_queries = queries + (long long)blockIdx.x * query_step;
    for (int i = threadIdx.x; i < heads * half; i += blockDim.x) {
        int head = i / half * dim;
        turn(own_queries + head, query_bias + head, turned + (long long)blockIdx.x * heads * dim + head, i % half);
    }
    Pages<T> pages(slabs, nullptr, shift, layers, kv_heads, dim, layer, 0);
    T *first = pages.keys(page) + place * dim;
    const T *own_keys = keys + (long long)blockIdx.x * key_step;
    for (int i = threadIdx.x; i < kv_heads * half; i += blockDim.x) {
        int head = i / half * dim;
        turn(own_keys + head, key_bias + head, first + head * PAGE, i % half);
    }
    const T *own_values = values + (long long)blockIdx.x * key_step;
    for (int i = threadIdx.x; i < kv_heads * dim; i += blockDim.x) {
        first[pages.value_offset + i / dim * PAGE * dim + i % dim] = sum(own_values, value_bias, i);
    }
    int rest = zeros * dim;
    for (int i = threadIdx.x; i < 2 * kv_heads * rest; i += blockDim.x) {
        first[i / rest * PAGE * dim + dim + i % rest] = narrow<T>(0.0f);
    }
}

// Copies the beginnings of pages and zeroes what follows; a block for each page and head. A row of `copies` is: page to read, page to
// write, count of positions.
template <class T>
__device__ void paged_copy(T *const *slabs, const unsigned *copies, int parts, int shift, int dim) {
    const unsigned *copy = copies + blockIdx.x * 3;
    // All parts of a page, those of keys and those of values, follow each other as if they were heads of one layer.
    Pages<T> pages(slabs, nullptr, shift, 1, parts / 2, dim, 0, blockIdx.y);
    const T *from = pages.keys(copy[0]);
    T *to = pages.keys(copy[1]);
    int count = copy[2] * dim;
    for (int i = threadIdx.x; i < PAGE * dim; i += blockDim.x) to[i] = i < count ? from[i] : narrow<T>(0.0f);
}

#define KERNELS_OF_WIDTH(T, type, D)                                                                                         \
    extern "C" __global__ void __launch_bounds__(Sizes<T, D>::ROWS * 2) paged_tiles_##type##_##D(                            \
        const T *queries, T *const *slabs, const unsigned *table, const unsigned *tiles, T *out, int heads, int kv_heads,    \
        int layers, int layer, int shift, float scale) {                                                                     \
        paged_tiles<T, D>(queries, slabs, table, tiles, out, heads, kv_heads, layers, layer, shift, scale);                  \
    }                                                                                                                        \
    EXPORT(paged_tiles_##type##_##D)                                                                                         \
    extern "C" __global__ void __launch_bounds__(DECODE_WARPS * 32) paged_decode_##type##_##D(                               \
        const T *queries, T *const *slabs, const unsigned *table, const unsigned *items, const unsigned *shared_items,       \
        const unsigned *members, const unsigned *merges, unsigned *counts, T *out, float *parts, int heads, int kv_heads,    \
        int layers, int layer, int shift, int shared_count, float scale) {                                                   \
        Merges all = {merges, parts, counts};                                                                                \
        paged_decode<T, D>(                                                                                                  \
            queries, slabs, table, items, shared_items, members, all, out, heads, kv_heads, layers, layer, shift, shared_count,\
            scale);                                                                                                          \
    }                                                                                                                        \
    EXPORT(paged_decode_##type##_##D)

#define KERNELS(T, type)                                                                                                     \
    extern "C" __global__ void paged_plain_##type(                                                                           \
        const T *queries, T *const *slabs, const unsigned *table, const unsigned *items, T *out, int heads, int kv_heads,    \
        int layers, int layer, int shift, int dim, float scale) {                                                            \
        paged_plain<T>(queries, slabs, table, items, out, heads, kv_heads, layers, layer, shift, dim, scale);                \
    }                                                                                                                        \
    EXPORT(paged_plain_##type)                                                                                               \
    extern "C" __global__ void paged_write_##type(                                                                           \
        const T *queries, const T *keys, const T *values, const unsigned *places, const float *cosines, const float *sines,  \
        const T *query_bias, const T *key_bias, const T *value_bias, T *const *slabs, T *turned, int heads, int kv_heads,    \
        int layers, int layer, int shift, int half, int is_joined, int is_biased) {                                          \
        paged_write<T>(                                                                                                      \
            queries, keys, values, places, cosines, sines, query_bias, key_bias, value_bias, slabs, turned, heads, kv_heads, \
            layers, layer, shift, half, is_joined, is_biased);                                                               \
    }                                                                                                                        \
    EXPORT(paged_write_##type)                                                                                               \
    extern "C" __global__ void paged_copy_##type(T *const *slabs, const unsigned *copies, int parts, int shift, int dim) {   \
        paged_copy<T>(slabs, copies, parts, shift, dim);                                                                     \
    }                                                                                                                        \
    EXPORT(paged_copy_##type)                                                                                                \
    KERNELS_OF_WIDTH(T, type, 32)                                                                                            \
    KERNELS_OF_WIDTH(T, type, 64)                                                                                            \
    KERNELS_OF_WIDTH(T, type, 128)
