// What the kernels of attention share: a tile of queries of one head goes through keys tile by tile, with running maxima and sums
// (FlashAttention-2, arXiv:2307.08691).
#pragma once
#include "product.cuh"

// Shared memory in the order in which it is taken.
struct Shared {
    unsigned char *next;

    template <class T> __device__ T *take(int count) {
        T *taken = reinterpret_cast<T *>(next);
        next += (count * sizeof(T) + 127) / 128 * 128;
        return taken;
    }
};

// The running softmax of a warp's 16 rows of scores, `KEYS` columns at a time. Two threads have a row, each every other column.
template <class T, int KEYS> struct Softmax {
    // Probabilities take the place of the scores that they are made of.
    static constexpr int SCORE_STEP = KEYS + 4, PROBABILITY_STEP = SCORE_STEP * sizeof(float) / sizeof(T);

    float *scores, *factors; // shared memory of the warp: 16 rows of `SCORE_STEP`, and 16 values
    float top, sum;

    __device__ void start(float *all_scores, float *all_factors) {
        int warp = threadIdx.x / 32;
        scores = all_scores + warp * 16 * SCORE_STEP;
        factors = all_factors + warp * 16;
        top = -INFINITE;
        sum = 0.0f;
    }

    // Takes in the products of the rows with some keys, of which those count that `is_seen(row, column)`, and adds the values
    // of the keys by their weights to the result.
    template <int D, class F>
    __device__ void add(
        const Places<T> &places, Result<T, KEYS> &products, const T *values, int value_step, float scale, F is_seen,
        Result<T, D> &result) {
        int row = threadIdx.x % 32 / 2, half = threadIdx.x % 2;
        T *probabilities = reinterpret_cast<T *>(scores);
        __syncwarp(); // the probabilities before these have been read
        products.each(places, [&](int row, int column, float &value) { scores[row * SCORE_STEP + column] = value; });
        __syncwarp();
        float mine[KEYS / 2], highest = top, part = 0.0f;
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) {
            int column = 2 * i + half;
            mine[i] = is_seen(row, column) ? scores[row * SCORE_STEP + column] * scale : -INFINITE;
            highest = fmaxf(highest, mine[i]);
        }
        highest = fmaxf(highest, __shfl_xor_sync(EVERY_THREAD, highest, 1));
        float base = highest == -INFINITE ? 0.0f : highest, factor = __expf(top - base);
        __syncwarp(); // all scores of the warp have been read
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) {
            float probability = __expf(mine[i] - base);
            part += probability;
            probabilities[row * PROBABILITY_STEP + 2 * i + half] = narrow<T>(probability);
        }
        sum = sum * factor + part + __shfl_xor_sync(EVERY_THREAD, part, 1);
        top = highest;
        if (half == 0) factors[row] = factor;
        __syncwarp();
        result.each(places, [&](int row, int, float &value) { value *= factors[row]; });
        result.template add<false, KEYS>(probabilities, PROBABILITY_STEP, values, value_step);
    }
};

// Attention of the `count` queries from row `first` on, of the head of the block. `keys` has ranges of keys, of which queries see
// all of the earlier ones and of the last one those that are not after themselves (`query(row)` is a query's number among them).
template <class T, int D, class Keys>
__device__ void attend_tile(
    const T *queries, const Keys &keys, T *out, float *log_sums, int first, int count, int heads, float scale) {
    constexpr int ROWS = Sizes<T, D>::ROWS, STEP = Sizes<T, D>::STEP;
    DYNAMIC_SHARED(unsigned char, memory);
    Shared shared = {memory};
    T *query_tile = shared.take<T>(ROWS * STEP), *key_tile = shared.take<T>(ROWS * STEP);
    T *value_tile = shared.take<T>(ROWS * STEP);
    float *scores = shared.take<float>(ROWS * Softmax<T, ROWS>::SCORE_STEP), *factors = shared.take<float>(ROWS);

    int head = blockIdx.y, query_step = heads * D;
    Places<T> places;
    places.find(scores);
    Load<T, D>::tile(query_tile, queries + (long long)first * query_step + head * D, count, query_step);

    int warp = threadIdx.x / 32, row = threadIdx.x % 32 / 2, half = threadIdx.x % 2;
    Softmax<T, ROWS> softmax;
    softmax.start(scores, factors);
    Result<T, D> result;
    result.clear();
    for (int range = 0; range < keys.ranges(); range++) {
        bool is_last = range == keys.ranges() - 1;
        int end = keys.end(range);
        for (int key = keys.start(range); key < end; key += ROWS) {
            int valid = min(ROWS, end - key);
            __syncthreads();
            keys.load(key_tile, value_tile, key, valid);
            __syncthreads();
            Result<T, ROWS> products;
            products.clear();
            products.template add<true, D>(query_tile + warp * 16 * STEP, STEP, key_tile, STEP);
            auto is_seen = [&](int row, int column) {
                return column < valid && (!is_last || key + column <= keys.query(warp * 16 + row));
            };
            softmax.add(places, products, value_tile, STEP, scale, is_seen, result);
        }
    }
    float *own_factors = softmax.factors;
    int place = warp * 16 + row;
    __syncwarp(); // all factors have been read
    if (half == 0) {
        own_factors[row] = 1.0f / softmax.sum;
        if (log_sums && place < count) log_sums[(long long)(first + place) * heads + head] = softmax.top + __logf(softmax.sum);
    }
    __syncwarp();
    result.each(places, [&](int row, int column, float &value) {
        int place = warp * 16 + row;
        if (place < count) out[((long long)(first + place) * heads + head) * D + column] = narrow<T>(value * own_factors[row]);
    });
}
