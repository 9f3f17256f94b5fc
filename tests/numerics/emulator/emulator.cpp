// Reads one launch from standard input, runs it and writes all buffers to standard output. All numbers are little-endian:
//
//     u32 length and bytes of the kernel's name; u32 blocks in x, y, z; u32 threads in x, y; u32 bytes of shared memory;
//     u32 1 for descending turns; u32 count of buffers, each u64 length and bytes; u32 count of arguments, each u32 kind and
//     0: u32 buffer (its address); 1: u32 count of u32 buffers (the address of a table of their addresses; all ones for null);
//     2: 32 bits as they are
//
// Exit status 1 and a line on standard error if a kernel writes beside its buffers, if its threads wait for different barriers,
// or if the launch does not fit.
#include "emulator.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <ucontext.h>

namespace emulator {

Thread *current;
dim3 grid, block_index, block;
unsigned char *shared;

namespace {

constexpr size_t stack_bytes = 256 << 10;
constexpr size_t guard_bytes = 4096;
// That of memory on a device.
constexpr size_t alignment = 256;

// Threads that wait for each other.
struct Group {
    unsigned alive = 0, arrived = 0;
    uint64_t generation = 0;
};

struct Fiber {
    Thread thread;
    ucontext_t context;
    std::unique_ptr<unsigned char[]> stack;
    bool done = false;
    alignas(16) unsigned char slot[16];
};

std::vector<Fiber> fibers;
std::vector<Group> warps;
Group whole;
ucontext_t scheduler;
uint64_t progress;

std::map<std::string, Body> &kernels() {
    static std::map<std::string, Body> map;
    return map;
}

Body running;
const std::vector<uint64_t> *running_arguments;

void open_if_full(Group &group) {
    if (group.alive == 0 || group.arrived < group.alive) return;
    group.arrived = 0;
    group.generation++;
    progress++;
}

void wait(Group &group) {
    uint64_t mine = group.generation;
    group.arrived++;
    open_if_full(group);
    while (group.generation == mine) {
        Thread *self = current;
        swapcontext(&fibers[self->number].context, &scheduler);
    }
}

void start() {
    running(*running_arguments);
    Fiber &fiber = fibers[current->number];
    fiber.done = true;
    progress++;
    Group &warp = warps[fiber.thread.number / 32];
    warp.alive--;
    whole.alive--;
    open_if_full(warp);
    open_if_full(whole);
    setcontext(&scheduler);
}

void run_block(bool descending) {
    unsigned count = block.x * block.y;
    whole = Group{count, 0, 0};
    warps.assign((count + 31) / 32, Group{});
    for (unsigned number = 0; number < count; number++) {
        Fiber &fiber = fibers[number];
        warps[number / 32].alive++;
        fiber.thread = Thread{{number % block.x, number / block.x, 0}, number};
        fiber.done = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = stack_bytes;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, start, 0);
    }
    while (whole.alive > 0) {
        uint64_t before = progress;
        for (unsigned turn = 0; turn < count; turn++) {
            Fiber &fiber = fibers[descending ? count - 1 - turn : turn];
            if (fiber.done) continue;
            current = &fiber.thread;
            swapcontext(&scheduler, &fiber.context);
        }
        if (progress == before) fail("the threads of a block wait for different barriers");
    }
}

template <class T> T read() {
    T value;
    if (std::fread(&value, sizeof value, 1, stdin) != 1) fail("the launch ends early");
    return value;
}

unsigned char *aligned(unsigned char *memory) {
    return memory + (alignment - reinterpret_cast<uintptr_t>(memory) % alignment) % alignment;
}

struct Buffer {
    std::unique_ptr<unsigned char[]> memory;
    size_t size;

    unsigned char *start() { return aligned(memory.get()); }
    unsigned char *data() { return start() + guard_bytes; }
};

Buffer read_buffer() {
    size_t size = read<uint64_t>();
    // What lies beside a buffer reads as NaN, and as a large index.
    Buffer buffer{std::unique_ptr<unsigned char[]>(new unsigned char[size + 2 * guard_bytes + alignment]), size};
    std::memset(buffer.start(), 0xff, size + 2 * guard_bytes);
    if (std::fread(buffer.data(), 1, size, stdin) != size) fail("the launch ends early");
    return buffer;
}

void check_ends(Buffer &buffer, size_t index) {
    for (size_t at = 0; at < guard_bytes; at++) {
        if (buffer.start()[at] != 0xff || buffer.data()[buffer.size + at] != 0xff) {
            fail("the kernel wrote beside buffer " + std::to_string(index));
        }
    }
}

} // namespace

[[noreturn]] void fail(const std::string &message) {
    std::fprintf(stderr, "%s\n", message.c_str());
    std::exit(1);
}

void block_barrier() { wait(whole); }

void warp_barrier() { wait(warps[current->number / 32]); }

const void *exchange(const void *value, size_t size, unsigned lane) {
    unsigned first = current->number / 32 * 32;
    std::memcpy(fibers[current->number].slot, value, size);
    warp_barrier();
    return fibers[first + lane].slot;
}

Registration::Registration(const char *name, Body body) { kernels()[name] = body; }

} // namespace emulator

int main() {
    using namespace emulator;
    std::string name(read<uint32_t>(), ' ');
    if (std::fread(name.data(), 1, name.size(), stdin) != name.size()) fail("the launch ends early");
    auto found = kernels().find(name);
    if (found == kernels().end()) fail("no kernel `" + name + "`");
    grid.x = read<uint32_t>(), grid.y = read<uint32_t>(), grid.z = read<uint32_t>();
    block.x = read<uint32_t>(), block.y = read<uint32_t>(), block.z = 1;
    size_t shared_bytes = read<uint32_t>();
    bool descending = read<uint32_t>() == 1;

    std::vector<Buffer> buffers(read<uint32_t>());
    for (Buffer &buffer : buffers) buffer = read_buffer();
    auto address = [&](uint32_t index) {
        return index == UINT32_MAX ? 0 : reinterpret_cast<uint64_t>(buffers.at(index).data());
    };
    std::vector<std::vector<uint64_t>> tables;
    std::vector<uint64_t> arguments(read<uint32_t>());
    for (uint64_t &argument : arguments) {
        switch (read<uint32_t>()) {
        case 0: argument = address(read<uint32_t>()); break;
        case 1:
            tables.emplace_back(read<uint32_t>());
            for (uint64_t &entry : tables.back()) entry = address(read<uint32_t>());
            argument = reinterpret_cast<uint64_t>(tables.back().data());
            break;
        default: argument = read<uint32_t>();
        }
    }

    fibers = std::vector<Fiber>(block.x * block.y);
    for (Fiber &fiber : fibers) fiber.stack.reset(new unsigned char[stack_bytes]);
    std::unique_ptr<unsigned char[]> memory(new unsigned char[shared_bytes + guard_bytes + alignment]);
    shared = aligned(memory.get());
    running = found->second;
    running_arguments = &arguments;
    for (block_index.z = 0; block_index.z < grid.z; block_index.z++)
        for (block_index.y = 0; block_index.y < grid.y; block_index.y++)
            for (block_index.x = 0; block_index.x < grid.x; block_index.x++) {
                std::memset(shared, 0xff, shared_bytes + guard_bytes);
                run_block(descending);
                for (size_t at = 0; at < guard_bytes; at++)
                    if (shared[shared_bytes + at] != 0xff) fail("the kernel wrote beside its shared memory");
            }
    for (size_t index = 0; index < buffers.size(); index++) {
        check_ends(buffers[index], index);
        if (std::fwrite(buffers[index].data(), 1, buffers[index].size, stdout) != buffers[index].size) fail("cannot write");
    }
    return 0;
}
