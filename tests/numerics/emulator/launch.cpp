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
#include <deque>
#include <memory>
#include <vector>

using emulator::fail;

namespace {

constexpr size_t guard_bytes = 4096;
// That of memory on a device.
constexpr size_t alignment = 256;

template <class T> T read() {
    T value;
    if (std::fread(&value, sizeof value, 1, stdin) != 1) fail("the launch ends early");
    return value;
}

struct Buffer {
    std::unique_ptr<unsigned char[]> memory;
    size_t size;

    unsigned char *start() {
        unsigned char *from = memory.get();
        return from + (alignment - reinterpret_cast<uintptr_t>(from) % alignment) % alignment;
    }
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

int main() {
    std::string name(read<uint32_t>(), ' ');
    if (std::fread(name.data(), 1, name.size(), stdin) != name.size()) fail("the launch ends early");
    const emulator::Kernel *kernel = emulator::find_kernel(name);
    if (!kernel) fail("no kernel `" + name + "`");
    dim3 grid, block{1, 1, 1};
    grid.x = read<uint32_t>(), grid.y = read<uint32_t>(), grid.z = read<uint32_t>();
    block.x = read<uint32_t>(), block.y = read<uint32_t>();
    size_t shared_bytes = read<uint32_t>();
    bool descending = read<uint32_t>() == 1;

    std::vector<Buffer> buffers(read<uint32_t>());
    for (Buffer &buffer : buffers) buffer = read_buffer();
    auto address = [&](uint32_t index) {
        return index == UINT32_MAX ? 0 : reinterpret_cast<uint64_t>(buffers.at(index).data());
    };
    std::deque<std::vector<uint64_t>> tables;
    std::vector<uint64_t> values(read<uint32_t>());
    std::vector<void *> arguments;
    for (uint64_t &value : values) {
        switch (read<uint32_t>()) {
        case 0: value = address(read<uint32_t>()); break;
        case 1:
            tables.emplace_back(read<uint32_t>());
            for (uint64_t &entry : tables.back()) entry = address(read<uint32_t>());
            value = reinterpret_cast<uint64_t>(tables.back().data());
            break;
        default: value = read<uint32_t>();
        }
        arguments.push_back(&value);
    }
    if (arguments.size() != kernel->argument_count) {
        fail("the kernel takes " + std::to_string(kernel->argument_count) + " arguments, not " + std::to_string(arguments.size()));
    }
    emulator::run(*kernel, grid, block, shared_bytes, arguments.data(), descending);
    for (size_t index = 0; index < buffers.size(); index++) {
        check_ends(buffers[index], index);
        if (std::fwrite(buffers[index].data(), 1, buffers[index].size, stdout) != buffers[index].size) fail("cannot write");
    }
    return 0;
}
