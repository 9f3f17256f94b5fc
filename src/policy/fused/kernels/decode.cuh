// Attention of single tokens to pages, as rollouts have it: keys and values are fetched while others are worked on, and pages that
// sequences have in common are read once for all of them (as in Hydragen, arXiv:2402.05099).
#pragma once
#include "pages.cuh"
#include <cuda_pipeline.h>

// Warps of a block that goes through the keys of single tokens.
#define DECODE_WARPS 4
// Rows of queries that such a block works on, of tokens that have pages in common: 16 a warp.
#define SHARED_ROWS (DECODE_WARPS * 16)
// The slot of a token whose keys a single block goes through.
#define NO_SLOT 0xffffffffu

// Rows to a tile, from wherever `row_of` says that they stand, and zeros in the other ones of its `size` rows; by all threads.
template <class T, int D, class F> __device__ void gather_rows(T *tile, int size, int count, F row_of) {
    constexpr int WIDTH = sizeof(T) == 2 ? 8 : 1; // elements in 16 bytes, where rows are aligned
    for (int i = threadIdx.x; i < size * (D / WIDTH); i += blockDim.x) {
        int row = i / (D / WIDTH), column = i % (D / WIDTH) * WIDTH, place = row * Sizes<T, D>::STEP + column;
        if constexpr (WIDTH == 8) {
            uint4 values = {0, 0, 0, 0};
            if (row < count) values = *reinterpret_cast<const uint4 *>(row_of(row) + column);
            *reinterpret_cast<uint4 *>(tile + place) = values;
        } else {
            tile[place] = row < count ? row_of(row)[column] : narrow<T>(0.0f);
        }
    }
}

// Keys or values of a page on their way to shared memory, from which tensor cores read them in fewer steps, while threads do other
// work. Those of 32 bits are read where they stand.
template <class T, int D> struct Fetched {
    static constexpr int STEP = Sizes<T, D>::STEP, ROOM = PAGE * STEP; // elements of a row, and in shared memory

    // By `threads` threads of which this is number `thread`.
    static __device__ void begin(T *room, const T *page, int thread, int threads) {
        constexpr int WIDTH = 8; // elements in 16 bytes
        for (int i = thread; i < PAGE * (D / WIDTH); i += threads) {
            T *to = room + i / (D / WIDTH) * STEP + i % (D / WIDTH) * WIDTH;
            __pipeline_memcpy_async(to, page + i * WIDTH, 16);
        }
    }
    static __device__ const T *rows(const T *room, const T *) { return room; }
};
template <int D> struct Fetched<float, D> {
    static constexpr int STEP = D, ROOM = 0;

    static __device__ void begin(float *, const float *, int, int) {}
    static __device__ const float *rows(const float *, const float *page) { return page; }
};

// The shared memory of a block for single tokens.
template <class T, int D> struct DecodeMemory {
    T *queries;
    float *factors, *tops, *sums, *scores;
    T *rooms; // two for each warp

    __device__ DecodeMemory(unsigned char *memory) {
        Shared shared = {memory};
        queries = shared.take<T>(SHARED_ROWS * Sizes<T, D>::STEP);
        factors = shared.take<float>(DECODE_WARPS * 16), tops = shared.take<float>(DECODE_WARPS * 16);
        sums = shared.take<float>(DECODE_WARPS * 16);
        scores = shared.take<float>(DECODE_WARPS * 16 * Softmax<T, PAGE>::SCORE_STEP);
        rooms = shared.take<T>(0);
    }
    // Results of the warps take the place of what was fetched, or of the scores.
    __device__ float *results() const { return Fetched<T, D>::ROOM > 0 ? reinterpret_cast<float *>(rooms) : scores; }
};

// Tokens whose keys several blocks go through. A row of `merges` is: row of queries, first slot, count of slots, count of blocks for
// each head of keys. `parts` are [slots, heads, D + 2]: sums of weighted values, the highest score, the sum of weights. `counts`,
// [merges, kv_heads], are zero before a launch and after it.
struct Merges {
    const unsigned *merges;
    float *parts;
    unsigned *counts;
};

// Whether this block is the last one of those for a token and a head of keys; by one thread, after all of the block have written
// their parts, and a fence and a barrier.
__device__ __forceinline__ bool is_last(const Merges &all, unsigned merge, int kv_heads) {
    unsigned *count = all.counts + merge * kv_heads + blockIdx.y;
    bool found = atomicAdd(count, 1u) + 1 == all.merges[merge * 4 + 3];
    if (found) *count = 0; // for the next layer
    return found;
}

// Puts together the parts of a token for the heads of queries that share this block's head of keys, by all threads of the block.
// The sum is the same whichever block is the last.
template <class T, int D>
__device__ void put_together(const Merges &all, unsigned merge, T *out, int heads, int group) {
    const unsigned *own = all.merges + merge * 4;
    long long step = (long long)heads * (D + 2);
    for (int i = threadIdx.x; i < group * D; i += blockDim.x) {
        int head = blockIdx.y * group + i / D, column = i % D;
        // Other blocks wrote them: not by way of this processor's cache.
        const float *first = all.parts + own[1] * step + head * (D + 2);
        float top = -INFINITE;
        for (unsigned part = 0; part < own[2]; part++) top = fmaxf(top, __ldcg(first + part * step + D));
        float sum = 0.0f, weight = 0.0f;
        for (unsigned part = 0; part < own[2]; part++) {
            float factor = __expf(__ldcg(first + part * step + D) - top);
            sum += factor * __ldcg(first + part * step + column);
            weight += factor * __ldcg(first + part * step + D + 1);
        }
        out[((long long)own[0] * heads + head) * D + column] = narrow<T>(sum / weight);
    }
}

// A single token: a block takes up to 16 heads of queries that share a head of keys through a part of the positions, its warps
// through every other page; the pages are read once for all of them. A row of `items` is: row of queries, first position (of a
// page), end, where the pages begin in `table`, and the slot of the part, or `NO_SLOT` if there is no other part, and then the row of
// `merges`.
template <class T, int D>
__device__ void decode_own(
    const T *queries, T *const *slabs, const unsigned *table, const unsigned *item, T *out, const Merges &merges, int heads,
    int kv_heads, int layers, int layer, int shift, float scale) {
    constexpr int WARPS = DECODE_WARPS, STEP = Sizes<T, D>::STEP;
    typedef Softmax<T, PAGE> Scores;
    typedef Fetched<T, D> Fetch;
    int start = item[1], end = item[2], group = heads / kv_heads, first_head = blockIdx.z * 16;
    int rows = min(16, group - first_head), head = blockIdx.y * group + first_head;
    unsigned slot = item[4];
    DYNAMIC_SHARED(unsigned char, raw);
    DecodeMemory<T, D> memory(raw);
    Places<T> places;
    places.find(memory.scores);
    const T *own_queries = queries + ((long long)item[0] * heads + head) * D;
    Pages<T> pages(slabs, table + item[3], shift, layers, kv_heads, D, layer, blockIdx.y);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = lane / 2, half = lane % 2;
    T *keys = memory.rooms + warp * 2 * Fetch::ROOM, *values = keys + Fetch::ROOM;
    auto fetch = [&](T *room, int key, long long offset) {
        if (key < end) Fetch::begin(room, pages.keys_at(key) + offset, lane, 32);
        __pipeline_commit(); // also where nothing is fetched, as batches are counted
    };
    int key = start + warp * PAGE;
    fetch(keys, key, 0);
    fetch(values, key, pages.value_offset);
    gather_rows<T, D>(memory.queries, 16, rows, [&](int row) { return own_queries + row * D; });
    __syncthreads();
    Scores softmax;
    softmax.start(memory.scores, memory.factors);
    Result<T, D> result;
    result.clear();
    for (; key < end; key += WARPS * PAGE) {
        const T *page = pages.keys_at(key);
        __pipeline_wait_prior(1); // for the keys
        __syncwarp();
        Result<T, PAGE> products;
        products.clear();
        products.template add<true, D>(memory.queries, STEP, Fetch::rows(keys, page), Fetch::STEP);
        __syncwarp(); // the keys have been read
        fetch(keys, key + WARPS * PAGE, 0);
        __pipeline_wait_prior(1); // for the values
        __syncwarp();
        auto is_seen = [&](int, int column) { return key + column < end; };
        softmax.add(places, products, Fetch::rows(values, page + pages.value_offset), Fetch::STEP, scale, is_seen, result);
        __syncwarp(); // the values have been read
        fetch(values, key + WARPS * PAGE, pages.value_offset);
    }

    float *factors = memory.factors, *tops = memory.tops, *sums = memory.sums, *results = memory.results();
    if (half == 0) tops[warp * 16 + row] = softmax.top, sums[warp * 16 + row] = softmax.sum;
    __syncthreads();
    auto highest = [&](int row) {
        float top = tops[row];
        for (int other = 1; other < WARPS; other++) top = fmaxf(top, tops[other * 16 + row]);
        return top;
    };
    // The first page is seen by the first warp, so that every row has a finite maximum.
    if (half == 0) factors[warp * 16 + row] = __expf(softmax.top - highest(row));
    __syncwarp();
    result.each(places, [&](int row, int column, float &value) {
        if (row < rows) results[(warp * rows + row) * D + column] = value * factors[warp * 16 + row];
    });
    __syncthreads();
    for (int i = threadIdx.x; i < rows * D; i += blockDim.x) {
        int row = i / D, column = i % D;
        float sum = 0.0f, weight = 0.0f;
        for (int other = 0; other < WARPS; other++) {
            sum += results[other * rows * D + i];
            weight += sums[other * 16 + row] * factors[other * 16 + row];
        }
        if (slot == NO_SLOT) {
            out[((long long)item[0] * heads + head) * D + i] = narrow<T>(sum / weight);
        } else {
            float *part = merges.parts + ((long long)slot * heads + head + row) * (D + 2);
            part[column] = sum;
            if (column == 0) part[D] = highest(row), part[D + 1] = weight;
        }
    }
    if (slot == NO_SLOT) return; // the whole block
    __threadfence();
    __shared__ bool found;
    __syncthreads();
    if (threadIdx.x == 0) found = is_last(merges, item[5], kv_heads);
    __syncthreads();
    if (!found) return;
    __threadfence();
    put_together<T, D>(merges, item[5], out, heads, group);
}

// Single tokens of sequences that have whole pages in common: a block takes all heads of queries of some of them that share a head
// of keys, up to `SHARED_ROWS`, through up to as many pages as it has warps, which are read once. A row of `items` is: first of its
// rows in `members`, their count, first position, end, where the pages begin in `table`; a row of `members`: row of queries, slot, row
// of `merges`.
template <class T, int D>
__device__ void decode_shared(
    const T *queries, T *const *slabs, const unsigned *table, const unsigned *item, const unsigned *members, T *out,
    const Merges &merges, int heads, int kv_heads, int layers, int layer, int shift, float scale) {
    constexpr int STEP = Sizes<T, D>::STEP;
    typedef Fetched<T, D> Fetch;
    const unsigned *own = members + item[0] * 3;
    int group = heads / kv_heads, rows = item[1] * group, start = item[2], end = item[3];
    DYNAMIC_SHARED(unsigned char, raw);
    DecodeMemory<T, D> memory(raw);
    Pages<T> pages(slabs, table + item[4], shift, layers, kv_heads, D, layer, blockIdx.y);
    auto room = [&](int number) { return memory.rooms + number * 2 * Fetch::ROOM; };
    for (int number = 0; number < DECODE_WARPS; number++) {
        int key = start + number * PAGE;
        if (key < end) {
            const T *page = pages.keys_at(key);
            Fetch::begin(room(number), page, threadIdx.x, blockDim.x);
            Fetch::begin(room(number) + Fetch::ROOM, page + pages.value_offset, threadIdx.x, blockDim.x);
        }
        __pipeline_commit();
    }
    Places<T> places;
    places.find(memory.scores);
    // Which row of queries and which part each row is, among those of all heads.
    unsigned *sources = reinterpret_cast<unsigned *>(memory.tops), *targets = reinterpret_cast<unsigned *>(memory.sums);
    for (int row = threadIdx.x; row < rows; row += blockDim.x) {
        unsigned head = blockIdx.y * group + row % group;
        sources[row] = own[row / group * 3] * heads + head;
        targets[row] = own[row / group * 3 + 1] * heads + head;
    }
    __syncthreads();
    gather_rows<T, D>(
        memory.queries, SHARED_ROWS, rows, [&](int row) { return queries + (long long)sources[row] * D; });
    int warp = threadIdx.x / 32, half = threadIdx.x % 2;
    Softmax<T, PAGE> softmax;
    softmax.start(memory.scores, memory.factors);
    Result<T, D> result;
    result.clear();
    for (int number = 0; number < DECODE_WARPS; number++) {
        int key = start + number * PAGE;
        __pipeline_wait_prior(DECODE_WARPS - 1 - number);
        __syncthreads();
        if (key >= end || warp * 16 >= rows) continue; // a whole warp
        const T *page = pages.keys_at(key);
        Result<T, PAGE> products;
        products.clear();
        products.template add<true, D>(memory.queries + warp * 16 * STEP, STEP, Fetch::rows(room(number), page), Fetch::STEP);
        const T *values = Fetch::rows(room(number) + Fetch::ROOM, page + pages.value_offset);
        softmax.add(places, products, values, Fetch::STEP, scale, [](int, int) { return true; }, result);
    }
    auto part = [&](int row) { return merges.parts + (long long)targets[row] * (D + 2); };
    int row = warp * 16 + threadIdx.x % 32 / 2;
    if (half == 0 && row < rows) part(row)[D] = softmax.top, part(row)[D + 1] = softmax.sum;
    result.each(places, [&](int row, int column, float &value) {
        if (warp * 16 + row < rows) part(warp * 16 + row)[column] = value;
    });
    __threadfence();
    __shared__ bool found[SHARED_ROWS];
    __syncthreads();
    for (int member = threadIdx.x; member < static_cast<int>(item[1]); member += blockDim.x) {
        found[member] = is_last(merges, own[member * 3 + 2], kv_heads);
    }
    __syncthreads();
    __threadfence();
    for (int member = 0; member < static_cast<int>(item[1]); member++) {
        if (found[member]) put_together<T, D>(merges, own[member * 3 + 2], out, heads, group);
    }
}

// Single tokens: the first `shared_count` blocks take `shared_items`, others `items`.
template <class T, int D>
__device__ void paged_decode(
    const T *queries, T *const *slabs, const unsigned *table, const unsigned *items, const unsigned *shared_items,
    const unsigned *members, const Merges &merges, T *out, int heads, int kv_heads, int layers, int layer, int shift,
    int shared_count, float scale) {
    int item = static_cast<int>(blockIdx.x) - shared_count;
    if (item >= 0) {
        decode_own<T, D>(
            queries, slabs, table, items + item * 6, out, merges, heads, kv_heads, layers, layer, shift, scale);
    } else if (blockIdx.z == 0) {
        decode_shared<T, D>(
            queries, slabs, table, shared_items + blockIdx.x * 5, members, out, merges, heads, kv_heads, layers, layer, shift,
            scale);
    }
}
