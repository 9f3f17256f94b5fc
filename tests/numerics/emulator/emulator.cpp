// The turns of threads, barriers and shared memory; see emulator.h.
#include "emulator.h"

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <ucontext.h>
#include <vector>

namespace emulator {

Thread *current;
dim3 grid, block_index, block;
unsigned char *shared;
bool is_descending;

namespace {

constexpr size_t stack_bytes = 256 << 10;
constexpr size_t guard_bytes = 4096;
constexpr size_t alignment = 256;

// Threads that wait for each other.
struct Group {
    unsigned alive = 0, arrived = 0;
    uint64_t generation = 0;
};

// Threads of one block after the other. Turns change by jumps, as a change of contexts asks the kernel of the system.
struct Fiber {
    Thread thread;
    std::unique_ptr<unsigned char[]> stack;
    jmp_buf place;
    bool is_started = false, done = true;
    alignas(16) unsigned char slot[16];
};

std::deque<Fiber> fibers;
std::vector<Group> warps;
Group whole;
jmp_buf scheduler;
uint64_t progress;

std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> map;
    return map;
}

Body running;
void *const *running_arguments;

void open_if_full(Group &group) {
    if (group.alive == 0 || group.arrived < group.alive) return;
    group.arrived = 0;
    group.generation++;
    progress++;
}

// Ends the turn of a fiber.
__attribute__((noinline)) void leave() {
    if (_setjmp(fibers[current->number].place) == 0) _longjmp(scheduler, 1);
}

void wait(Group &group) {
    uint64_t mine = group.generation;
    group.arrived++;
    open_if_full(group);
    while (group.generation == mine) leave();
}

void work() {
    for (;;) {
        running(running_arguments);
        Fiber &fiber = fibers[current->number];
        if (!fiber.thread.copies.empty()) fail("a thread ends before its asynchronous copies");
        fiber.done = true;
        progress++;
        Group &warp = warps[fiber.thread.number / 32];
        warp.alive--;
        whole.alive--;
        open_if_full(warp);
        open_if_full(whole);
        leave(); // until the next block
    }
}

// A turn of a fiber.
__attribute__((noinline)) void enter(Fiber &fiber) {
    current = &fiber.thread;
    if (_setjmp(scheduler) != 0) return;
    if (fiber.is_started) _longjmp(fiber.place, 1);
    fiber.is_started = true;
    fiber.stack.reset(new unsigned char[stack_bytes]);
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack.get();
    context.uc_stack.ss_size = stack_bytes;
    context.uc_link = nullptr;
    makecontext(&context, work, 0);
    setcontext(&context);
}

void run_block(bool descending) {
    unsigned count = block.x * block.y;
    whole = Group{count, 0, 0};
    warps.assign((count + 31) / 32, Group{});
    for (unsigned number = 0; number < count; number++) {
        Fiber &fiber = fibers[number];
        warps[number / 32].alive++;
        fiber.thread = Thread{{number % block.x, number / block.x, 0}, number, {}, {}};
        fiber.done = false;
    }
    while (whole.alive > 0) {
        uint64_t before = progress;
        for (unsigned turn = 0; turn < count; turn++) {
            Fiber &fiber = fibers[descending ? count - 1 - turn : turn];
            if (!fiber.done) enter(fiber);
        }
        if (progress == before) fail("the threads of a block wait for different barriers");
    }
}

} // namespace

[[noreturn]] void fail(const std::string &message) {
    std::fprintf(stderr, "%s\n", message.c_str());
    std::fflush(stderr);
    std::_Exit(1);
}

void block_barrier() { wait(whole); }

void warp_barrier() { wait(warps[current->number / 32]); }

const void *exchange(const void *value, size_t size, unsigned lane) {
    unsigned first = current->number / 32 * 32;
    std::memcpy(fibers[current->number].slot, value, size);
    warp_barrier();
    return fibers[first + lane].slot;
}

Registration::Registration(const char *name, Kernel kernel) { kernels()[name] = kernel; }

const Kernel *find_kernel(const std::string &name) {
    auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : &found->second;
}

void run(const Kernel &kernel, dim3 blocks, dim3 threads, size_t shared_bytes, void *const *arguments, bool descending) {
    grid = blocks, block = threads, is_descending = descending;
    while (fibers.size() < block.x * block.y) fibers.emplace_back();
    std::unique_ptr<unsigned char[]> memory(new unsigned char[shared_bytes + guard_bytes + alignment]);
    shared = memory.get() + (alignment - reinterpret_cast<uintptr_t>(memory.get()) % alignment) % alignment;
    running = kernel.body;
    running_arguments = arguments;
    for (block_index.z = 0; block_index.z < grid.z; block_index.z++)
        for (block_index.y = 0; block_index.y < grid.y; block_index.y++)
            for (block_index.x = 0; block_index.x < grid.x; block_index.x++) {
                std::memset(shared, 0xff, shared_bytes + guard_bytes);
                run_block(descending);
                for (size_t at = 0; at < guard_bytes; at++)
                    if (shared[shared_bytes + at] != 0xff) fail("the kernel wrote beside its shared memory");
            }
}

} // namespace emulator
