// Keys and values in pages (after PagedAttention, arXiv:2309.06180).
//
// A page holds `PAGE` positions of one sequence, [layers, 2, kv_heads, PAGE, dim]: keys, already turned to their positions, before
// values. Pages lie in slabs of `1 << shift`; page `n` is number `n % (1 << shift)` of slab `n >> shift`. What stands in a page
// behind the newest position is finite: products with it are masked, which no NaN would survive.
#pragma once
#include "tiles.cuh"

// Positions of a page.
#define PAGE 32

// The pages of one sequence, for one head of one layer.
template <class T> struct Pages {
    T *const *slabs;
    const unsigned *table;
    int shift;
    long long page_size, head_offset, value_offset;

    __device__ Pages(
        T *const *slabs, const unsigned *table, int shift, int layers, int kv_heads, int dim, int layer, int kv_head)
        : slabs(slabs), table(table), shift(shift) {
        long long head_size = PAGE * dim;
        value_offset = kv_heads * head_size;
        page_size = layers * 2 * value_offset;
        head_offset = layer * 2 * value_offset + kv_head * head_size;
    }

    // [PAGE, dim]; the values stand `value_offset` behind them.
    __device__ T *keys(unsigned number) const {
        return slabs[number >> shift] + (number & ((1u << shift) - 1)) * page_size + head_offset;
    }
    __device__ const T *keys_at(int position) const { return keys(table[position / PAGE]); }
};
