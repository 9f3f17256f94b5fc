// `__nv_bfloat16` for the emulator: the upper half of a float, rounded to nearest even.
#pragma once
#include "emulator.h"

struct alignas(2) __nv_bfloat16 {
    uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 x) { return __int_as_float(static_cast<int>(uint32_t(x.bits) << 16)); }

inline __nv_bfloat16 __float2bfloat16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (std::isnan(x)) return {uint16_t((bits >> 16) | 0x40)};
    return {uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}
