// Attention without a matrix of scores, after FlashAttention-2 (arXiv:2307.08691); the backward kernels compute the scores again
// from the stored log-sum-exp. No sum depends on the order in which blocks run.
//
// Rows of `queries` are [rows, heads, D], of `keys` and `values` [rows, kv_heads, D]. A row of `tiles` is: first row of queries,
// their count, the first row of their segment, first row in `ranges`, count of ranges. The queries see all rows of their ranges
// (`first`, `end`) and the rows of their segment up to themselves. A row of `key_tiles` is: first row of keys, their count, the end
// of the rows that see them, which see those that are not after themselves.
#pragma once
#include "tiles.cuh"

// Keys and values of one head, among the same rows as the queries.
template <class T, int D> struct PackedKeys {
    const T *keys, *values;
    const unsigned *before; // the ranges
    int range_count, segment, first, count, step;

    __device__ int ranges() const { return range_count + 1; }
    __device__ int start(int range) const { return range == range_count ? segment : before[range * 2]; }
    __device__ int end(int range) const { return range == range_count ? first + count : before[range * 2 + 1]; }
    __device__ int query(int row) const { return first + row; }
    __device__ void load(T *key_tile, T *value_tile, int key, int valid) const {
        Load<T, D>::tile(key_tile, keys + (long long)key * step, valid, step);
        Load<T, D>::tile(value_tile, values + (long long)key * step, valid, step);
    }
};

template <class T, int D>
__device__ void attention(
    const T *queries, const T *keys, const T *values, const unsigned *tiles, const unsigned *ranges, T *out, float *log_sums,
    int heads, int kv_heads, float scale) {
    const unsigned *tile = tiles + blockIdx.x * 5;
    int first = tile[0], count = tile[1], segment = tile[2], range_count = tile[4];
    const unsigned *before = ranges + tile[3] * 2;
    int kv_head = blockIdx.y / (heads / kv_heads);
    const T *own_keys = keys + kv_head * D, *own_values = values + kv_head * D;
    PackedKeys<T, D> packed = {own_keys, own_values, before, range_count, segment, first, count, kv_heads * D};
    attend_tile<T, D>(queries, packed, out, log_sums, first, count, heads, scale);
}

// sum(gradient * out) of each row and head, by a warp.
template <class T> __device__ void attention_delta(const T *out, const T *gradient, float *delta, int count, int dim) {
    int index = blockIdx.x * blockDim.y + threadIdx.y;
    if (index >= count) return; // a whole warp
    long long start = (long long)index * dim;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < dim; i += 32) sum += wide(out[start + i]) * wide(gradient[start + i]);
    sum = warp_sum(sum);
    if (threadIdx.x == 0) delta[index] = sum;
}

// dQ = dS K with dS = P (dO V^T - delta) scale and P = exp(Q K^T scale - log-sum-exp)
template <class T, int D>
__device__ void attention_backward_queries(
    const T *queries, const T *keys, const T *values, const T *gradient, const float *log_sums, const float *delta,
    const unsigned *tiles, const unsigned *ranges, T *of_queries, int heads, int kv_heads, float scale) {
    constexpr int ROWS = Sizes<T, D>::ROWS, STEP = Sizes<T, D>::STEP;
    constexpr int PULL_STEP = Sizes<T, ROWS>::STEP;
    DYNAMIC_SHARED(unsigned char, memory);
    Shared shared = {memory};
    T *query_tile = shared.take<T>(ROWS * STEP), *gradient_tile = shared.take<T>(ROWS * STEP);
    T *key_tile = shared.take<T>(ROWS * STEP), *value_tile = shared.take<T>(ROWS * STEP);
    T *pulls = shared.take<T>(ROWS * PULL_STEP);
    float *own_sums = shared.take<float>(ROWS), *own_delta = shared.take<float>(ROWS), *scratch = shared.take<float>(256);

    const unsigned *tile = tiles + blockIdx.x * 5;
    int first = tile[0], count = tile[1], range_count = tile[4];
    int head = blockIdx.y, kv_head = head / (heads / kv_heads);
    int query_step = heads * D, key_step = kv_heads * D;
    Places<T> places;
    places.find(scratch);
    Load<T, D>::tile(query_tile, queries + (long long)first * query_step + head * D, count, query_step);
    Load<T, D>::tile(gradient_tile, gradient + (long long)first * query_step + head * D, count, query_step);
    for (int i = threadIdx.x; i < ROWS; i += blockDim.x) {
        own_sums[i] = i < count ? log_sums[(long long)(first + i) * heads + head] : 0.0f;
        own_delta[i] = i < count ? delta[(long long)(first + i) * heads + head] : 0.0f;
    }
    int warp = threadIdx.x / 32;
    T *own_pulls = pulls + warp * 16 * PULL_STEP;
    Result<T, D> result;
    result.clear();
    for (int range = 0; range <= range_count; range++) {
        bool is_own = range == range_count;
        int start = is_own ? tile[2] : ranges[(tile[3] + range) * 2];
        int end = is_own ? first + count : ranges[(tile[3] + range) * 2 + 1];
        for (int key = start; key < end; key += ROWS) {
            int valid = min(ROWS, end - key);
            __syncthreads();
            Load<T, D>::tile(key_tile, keys + (long long)key * key_step + kv_head * D, valid, key_step);
            Load<T, D>::tile(value_tile, values + (long long)key * key_step + kv_head * D, valid, key_step);
            __syncthreads();
            Result<T, ROWS> products, changes;
            products.clear();
            products.template add<true, D>(query_tile + warp * 16 * STEP, STEP, key_tile, STEP);
            changes.clear();
            changes.template add<true, D>(gradient_tile + warp * 16 * STEP, STEP, value_tile, STEP);
            products.with(places, changes, [&](int row, int column, float &product, float change) {
                int place = warp * 16 + row;
                bool is_seen = column < valid && (!is_own || key + column <= first + place);
                float probability = is_seen ? __expf(product * scale - own_sums[place]) : 0.0f;
                own_pulls[row * PULL_STEP + column] = narrow<T>(probability * (change - own_delta[place]) * scale);
            });
            __syncwarp();
            result.template add<false, ROWS>(own_pulls, PULL_STEP, key_tile, STEP);
        }
    }
    result.each(places, [&](int row, int column, float &value) {
        int place = warp * 16 + row;
        if (place < count) of_queries[((long long)(first + place) * heads + head) * D + column] = narrow<T>(value);
    });
}

// dV = P^T dO and dK = dS^T Q of one head of queries, [rows, heads, D] each.
template <class T, int D>
__device__ void attention_backward_keys(
    const T *queries, const T *keys, const T *values, const T *gradient, const float *log_sums, const float *delta,
    const unsigned *key_tiles, float *of_keys, float *of_values, int heads, int kv_heads, float scale) {
    constexpr int ROWS = Sizes<T, D>::ROWS, STEP = Sizes<T, D>::STEP;
    constexpr int PULL_STEP = Sizes<T, ROWS>::STEP;
    DYNAMIC_SHARED(unsigned char, memory);
    Shared shared = {memory};
    T *query_tile = shared.take<T>(ROWS * STEP), *gradient_tile = shared.take<T>(ROWS * STEP);
    T *key_tile = shared.take<T>(ROWS * STEP), *value_tile = shared.take<T>(ROWS * STEP);
    T *pulls = shared.take<T>(ROWS * PULL_STEP);
    float *own_sums = shared.take<float>(ROWS), *own_delta = shared.take<float>(ROWS), *scratch = shared.take<float>(256);

    const unsigned *tile = key_tiles + blockIdx.x * 3;
    int first = tile[0], count = tile[1], end = tile[2];
    int head = blockIdx.y, kv_head = head / (heads / kv_heads);
    int query_step = heads * D, key_step = kv_heads * D;
    Places<T> places;
    places.find(scratch);
    Load<T, D>::tile(key_tile, keys + (long long)first * key_step + kv_head * D, count, key_step);
    Load<T, D>::tile(value_tile, values + (long long)first * key_step + kv_head * D, count, key_step);
    int warp = threadIdx.x / 32;
    T *own_pulls = pulls + warp * 16 * PULL_STEP;
    Result<T, D> key_result, value_result;
    key_result.clear();
    value_result.clear();
    for (int query = first; query < end; query += ROWS) {
        int valid = min(ROWS, end - query);
        __syncthreads();
        Load<T, D>::tile(query_tile, queries + (long long)query * query_step + head * D, valid, query_step);
        Load<T, D>::tile(gradient_tile, gradient + (long long)query * query_step + head * D, valid, query_step);
        for (int i = threadIdx.x; i < ROWS; i += blockDim.x) {
            own_sums[i] = i < valid ? log_sums[(long long)(query + i) * heads + head] : 0.0f;
            own_delta[i] = i < valid ? delta[(long long)(query + i) * heads + head] : 0.0f;
        }
        __syncthreads();
        // Rows are keys, columns queries.
        Result<T, ROWS> probabilities, changes;
        probabilities.clear();
        probabilities.template add<true, D>(key_tile + warp * 16 * STEP, STEP, query_tile, STEP);
        probabilities.each(places, [&](int row, int column, float &value) {
            int place = warp * 16 + row;
            bool is_seen = place < count && column < valid && first + place <= query + column;
            value = is_seen ? __expf(value * scale - own_sums[column]) : 0.0f;
            own_pulls[row * PULL_STEP + column] = narrow<T>(value);
        });
        __syncwarp();
        value_result.template add<false, ROWS>(own_pulls, PULL_STEP, gradient_tile, STEP);
        changes.clear();
        changes.template add<true, D>(value_tile + warp * 16 * STEP, STEP, gradient_tile, STEP);
        __syncwarp(); // all probabilities have been read
        probabilities.with(places, changes, [&](int row, int column, float &probability, float change) {
            own_pulls[row * PULL_STEP + column] = narrow<T>(probability * (change - own_delta[column]) * scale);
        });
        __syncwarp();
        key_result.template add<false, ROWS>(own_pulls, PULL_STEP, query_tile, STEP);
    }
    auto store = [&](Result<T, D> &result, float *out) {
        result.each(places, [&](int row, int column, float &value) {
            int place = warp * 16 + row;
            if (place < count) out[((long long)(first + place) * heads + head) * D + column] = value;
        });
    };
    store(key_result, of_keys);
    store(value_result, of_values);
}

// The sum over the heads that share keys: [rows, kv_heads, group, dim] to [rows, kv_heads, dim], `count` elements.
template <class T>
__device__ void attention_sum_groups(const float *parts, T *sums, long long count, int group, int dim) {
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    const float *part = parts + index / dim * group * dim + index % dim;
    float sum = 0.0f;
    for (int i = 0; i < group; i++) sum += part[(long long)i * dim];
    sums[index] = narrow<T>(sum);
}

#define KERNELS_OF_WIDTH(T, type, D)                                                                                         \
    extern "C" __global__ void __launch_bounds__(Sizes<T, D>::ROWS * 2) attention_##type##_##D(                              \
        const T *queries, const T *keys, const T *values, const unsigned *tiles, const unsigned *ranges, T *out,             \
        float *log_sums, int heads, int kv_heads, float scale) {                                                             \
        attention<T, D>(queries, keys, values, tiles, ranges, out, log_sums, heads, kv_heads, scale);                        \
    }                                                                                                                        \
    EXPORT(attention_##type##_##D)                                                                                           \
    extern "C" __global__ void __launch_bounds__(Sizes<T, D>::ROWS * 2) attention_backward_queries_##type##_##D(             \
        const T *queries, const T *keys, const T *values, const T *gradient, const float *log_sums, const float *delta,      \
        const unsigned *tiles, const unsigned *ranges, T *of_queries, int heads, int kv_heads, float scale) {                \
        attention_backward_queries<T, D>(                                                                                    \
            queries, keys, values, gradient, log_sums, delta, tiles, ranges, of_queries, heads, kv_heads, scale);            \
    }                                                                                                                        \
    EXPORT(attention_backward_queries_##type##_##D)                                                                          \
    extern "C" __global__ void __launch_bounds__(Sizes<T, D>::ROWS * 2) attention_backward_keys_##type##_##D(                \
        const T *queries, const T *keys, const T *values, const T *gradient, const float *log_sums, const float *delta,      \
        const unsigned *key_tiles, float *of_keys, float *of_values, int heads, int kv_heads, float scale) {                 \
        attention_backward_keys<T, D>(                                                                                       \
            queries, keys, values, gradient, log_sums, delta, key_tiles, of_keys, of_values, heads, kv_heads, scale);        \
    }                                                                                                                        \
    EXPORT(attention_backward_keys_##type##_##D)

#define KERNELS(T, type)                                                                                                     \
    extern "C" __global__ void attention_delta_##type(const T *out, const T *gradient, float *delta, int count, int dim) {   \
        attention_delta<T>(out, gradient, delta, count, dim);                                                                \
    }                                                                                                                        \
    EXPORT(attention_delta_##type)                                                                                           \
    extern "C" __global__ void attention_sum_groups_##type(const float *parts, T *sums, int rows, int group, int width, int dim) { \
        attention_sum_groups<T>(parts, sums, (long long)rows * width, group, dim);                                           \
    }                                                                                                                        \
    EXPORT(attention_sum_groups_##type)                                                                                      \
    KERNELS_OF_WIDTH(T, type, 32)                                                                                            \
    KERNELS_OF_WIDTH(T, type, 64)                                                                                            \
    KERNELS_OF_WIDTH(T, type, 128)
