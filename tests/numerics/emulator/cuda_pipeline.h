// Copies to shared memory that go on while threads work, for the emulator. Where threads take turns in ascending order, they happen
// only when they are waited for, so that a wait which is missing shows; in descending order at once, so that a barrier which is
// missing before them shows. What nobody has waited for at the end of a thread is a mistake.
#pragma once
#include "emulator.h"

inline void __pipeline_memcpy_async(void *to, const void *from, size_t size) {
    for (const void *place : {static_cast<const void *>(to), from}) {
        if (size != 16 || reinterpret_cast<uintptr_t>(place) % 16 != 0) emulator::fail("an asynchronous copy is not of 16 aligned bytes");
    }
    if (emulator::is_descending) std::memcpy(to, from, size);
    emulator::current->copies.push_back({to, from, size});
}

inline void __pipeline_commit() { emulator::current->batches.push_back(emulator::current->copies.size()); }

// Waits for all batches but the newest `count`.
inline void __pipeline_wait_prior(size_t count) {
    auto &copies = emulator::current->copies;
    auto &batches = emulator::current->batches;
    if (batches.size() <= count) return;
    size_t end = batches[batches.size() - count - 1];
    for (size_t index = 0; index < end && !emulator::is_descending; index++) {
        std::memcpy(copies[index].to, copies[index].from, copies[index].size);
    }
    copies.erase(copies.begin(), copies.begin() + end);
    batches.erase(batches.begin(), batches.end() - count);
    for (size_t &batch : batches) batch -= end;
}
