// What stands in for a CUDA driver and its cuBLAS on a machine without a graphics processor: a library with the functions that a
// CUDA build of the program calls. Kernels of the program run in the emulator, candle's own by plain loops, products by plain
// loops too, in the order of the calls. `scripts/cuda-emulator.sh` builds it and says what it is for.
//
// It ends the process with a message on standard error where a device would compute something else or fail later: work in a
// thread's own queue, memory beside an allocation or given back, launches that no device takes, arguments that do not fit.
// Memory that nobody has written is NaN.
#include "driver.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

using emulator::fail;

namespace driver {

std::recursive_mutex mutex;
const bool is_skipping = std::getenv("GIFT_EMULATOR_SKIP") != nullptr;

namespace {

enum Result { SUCCESS = 0, INVALID_VALUE = 1, NOT_FOUND = 500 };

constexpr size_t page_bytes = 4096;
constexpr size_t alignment = 256;
// Allocations that were given back and are still watched.
constexpr size_t watched = 8192;
// What a processor of the Hopper generation takes.
constexpr unsigned max_threads = 1024, max_grid = 65535, free_shared_bytes = 48 << 10, max_shared_bytes = 227 << 10;

struct Allocation {
    size_t size, mapped;
    unsigned char *base;
    bool is_free;
};

// By address.
std::map<uintptr_t, Allocation> allocations;
std::deque<uintptr_t> given_back;

struct Function {
    std::string name;
    size_t parameter_count;
    unsigned shared_bytes = free_shared_bytes;
};

struct Module {
    std::map<std::string, std::unique_ptr<Function>> functions;
};

std::vector<std::unique_ptr<Module>> modules;
std::map<std::string, size_t> counts;
std::string running = "the host";

// --- memory -------------------------------------------------------------------------------------------------------------------

const char *describe(uintptr_t address, char (&text)[256]) {
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin()) return "no memory of the device";
    auto &[start, allocation] = *std::prev(after);
    std::snprintf(text, sizeof text, "byte %zu of an allocation of %zu%s", size_t(address - start), allocation.size,
                  allocation.is_free ? ", which was given back" : "");
    return text;
}

void on_fault(int, siginfo_t *info, void *) {
    char text[256];
    auto address = reinterpret_cast<uintptr_t>(info->si_addr);
    std::fprintf(stderr, "%s touched %p: %s\n", running.c_str(), info->si_addr, describe(address, text));
    std::_Exit(1);
}

void watch_faults() {
    static bool done = false;
    if (done) return;
    done = true;
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    // On a stack of its own, as fibers have small ones.
    static unsigned char stack[64 << 10];
    stack_t alternate = {};
    alternate.ss_sp = stack, alternate.ss_size = sizeof stack;
    sigaltstack(&alternate, nullptr);
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
}

uint64_t allocate(size_t size) {
    watch_faults();
    counts["allocations"]++;
    size_t room = (size + alignment - 1) / alignment * alignment;
    if (is_skipping) return uint64_t(1) << 40; // nobody reads or writes there
    size_t pages = (room + page_bytes - 1) / page_bytes * page_bytes;
    // The end of the memory lies at the end of a page, and after it comes one that nobody may touch.
    size_t mapped = pages + page_bytes;
    auto *base = static_cast<unsigned char *>(
        mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base == MAP_FAILED) return 0;
    mprotect(base + pages, page_bytes, PROT_NONE);
    unsigned char *memory = base + pages - room;
    std::memset(base, 0xff, pages);
    auto address = reinterpret_cast<uintptr_t>(memory);
    allocations[address] = {size, mapped, base, false};
    return address;
}

void give_back(uintptr_t address) {
    if (is_skipping) return;
    auto found = allocations.find(address);
    if (found == allocations.end() || found->second.is_free) fail("memory was given back that is not held");
    Allocation &allocation = found->second;
    // What lies between the end of the allocation and the next multiple of the alignment.
    size_t room = (allocation.size + alignment - 1) / alignment * alignment;
    for (size_t at = allocation.size; at < room; at++)
        if (reinterpret_cast<unsigned char *>(address)[at] != 0xff) fail("a kernel wrote behind an allocation of " + std::to_string(allocation.size) + " bytes");
    allocation.is_free = true;
    mprotect(allocation.base, allocation.mapped, PROT_NONE);
    madvise(allocation.base, allocation.mapped, MADV_DONTNEED);
    given_back.push_back(address);
    if (given_back.size() <= watched) return;
    auto oldest = allocations.find(given_back.front());
    munmap(oldest->second.base, oldest->second.mapped);
    allocations.erase(oldest);
    given_back.pop_front();
}

} // namespace

unsigned char *memory_at(uint64_t address, size_t size, const char *what) {
    char text[256];
    auto after = allocations.upper_bound(address);
    if (after != allocations.begin()) {
        auto &[start, allocation] = *std::prev(after);
        if (!allocation.is_free && address + size <= start + allocation.size) return reinterpret_cast<unsigned char *>(address);
    }
    if (size == 0) return nullptr;
    fail(std::string(what) + " of " + std::to_string(size) + " bytes at " + describe(address, text));
}

void check_queue(const void *queue, const char *what) {
    if (reinterpret_cast<uintptr_t>(queue) <= 2) fail(std::string(what) + " in the default queue, or in that of a thread");
}

void count(const std::string &what, size_t by) { counts[what] += by; }

thread_local void *current_context;

void check_context(const char *what) {
    if (!current_context) fail(std::string(what) + " from a thread without a context");
}

namespace {

// --- launches -----------------------------------------------------------------------------------------------------------------

// The kernels of a module, with the numbers of their parameters.
std::unique_ptr<Module> read_module(const std::string &code) {
    auto module = std::make_unique<Module>();
    const std::string mark = ".entry ";
    for (size_t at = code.find(mark); at != std::string::npos; at = code.find(mark, at + 1)) {
        size_t start = at + mark.size(), open = code.find('(', start), close = code.find(')', open);
        std::string name = code.substr(start, open - start);
        while (!name.empty() && std::isspace(static_cast<unsigned char>(name.back()))) name.pop_back();
        size_t parameters = 0;
        for (size_t found = code.find(".param", open); found < close; found = code.find(".param", found + 1)) parameters++;
        module->functions[name].reset(new Function{name, parameters});
    }
    return module;
}

void check_launch(const Function &function, dim3 grid, dim3 block, unsigned shared_bytes) {
    auto refuse = [&](const std::string &why) { fail("`" + function.name + "`: " + why); };
    if (block.x * block.y * block.z == 0 || block.x * block.y * block.z > max_threads || block.z != 1) refuse("threads of a block");
    if (grid.x == 0 || grid.x > INT32_MAX || grid.y == 0 || grid.y > max_grid || grid.z == 0 || grid.z > max_grid) refuse("blocks of the grid");
    if (shared_bytes > function.shared_bytes) {
        refuse(std::to_string(shared_bytes) + " bytes of shared memory, where it may have " + std::to_string(function.shared_bytes));
    }
}

void launch(Function &function, dim3 grid, dim3 block, unsigned shared_bytes, void **arguments) {
    check_launch(function, grid, block, shared_bytes);
    counts["kernel " + function.name]++;
    running = "`" + function.name + "`";
    const emulator::Kernel *kernel = emulator::find_kernel(function.name);
    if (kernel && kernel->argument_count != function.parameter_count) fail(running + " has another number of parameters when it is compiled for a device");
    if (!is_skipping) {
        static const bool descending = std::getenv("GIFT_EMULATOR_DESCENDING") != nullptr;
        if (kernel) emulator::run(*kernel, grid, block, shared_bytes, arguments, descending);
        else if (!run_plain(function.name, grid.x, arguments)) fail("no loop for the kernel " + running);
    }
    running = "the host";
}

void wait() {
    counts["waits"]++;
    arrive_all();
}

void to_host(void *to, uint64_t from, size_t size) {
    counts["copies to the host"]++, counts["bytes to the host"] += size;
    if (is_skipping) {
        std::memset(to, 0, size);
        return;
    }
    const unsigned char *memory = memory_at(from, size, "a copy to the host");
    // A copy to pageable memory waits for the device.
    if (is_page_locked(to)) copy_later(to, memory, size);
    else std::memcpy(to, memory, size), arrive_all();
}

void to_device(uint64_t to, const void *from, size_t size) {
    counts["copies to the device"]++, counts["bytes to the device"] += size;
    if (!is_skipping && size > 0) std::memcpy(memory_at(to, size, "a copy to the device"), from, size);
}

void on_device(uint64_t to, uint64_t from, size_t size) {
    counts["copies on the device"]++;
    if (is_skipping || size == 0) return;
    std::memmove(memory_at(to, size, "a copy on the device"), memory_at(from, size, "a copy on the device"), size);
}

void fill(uint64_t to, unsigned char byte, size_t size) {
    counts["fills"]++;
    if (!is_skipping && size > 0) std::memset(memory_at(to, size, "a fill"), byte, size);
}

struct Report {
    ~Report() {
        const char *file = std::getenv("GIFT_EMULATOR_REPORT");
        FILE *to = file ? std::fopen(file, "w") : nullptr;
        if (!to) return;
        for (auto &[what, number] : counts) std::fprintf(to, "%zu\t%s\n", number, what.c_str());
        std::fclose(to);
    }
} report;

// What the device seems to have: `GIFT_EMULATOR_MIB`, 16 GiB if it is not set.
size_t total_bytes() {
    const char *wanted = std::getenv("GIFT_EMULATOR_MIB");
    return (wanted ? std::strtoull(wanted, nullptr, 10) : 16 << 10) << 20;
}

size_t used_bytes() {
    size_t sum = 0;
    for (auto &[address, allocation] : allocations) sum += allocation.is_free ? 0 : allocation.size;
    return sum;
}

int context, pool;

} // namespace
} // namespace driver

// --- what the driver's library offers -----------------------------------------------------------------------------------------

using namespace driver;
typedef int CUresult, CUdevice;
typedef uint64_t CUdeviceptr;
typedef void *Handle;
#define API extern "C" __attribute__((visibility("default"))) CUresult
#define LOCKED std::lock_guard<std::recursive_mutex> guard(mutex)

API cuInit(unsigned) { return SUCCESS; }
API cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }
API cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
API cuDeviceGet(CUdevice *device, int ordinal) { return *device = ordinal, ordinal == 0 ? SUCCESS : 101; }
API cuDeviceGetName(char *name, int length, CUdevice) { return std::snprintf(name, length, "emulator"), SUCCESS; }
API cuDeviceTotalMem_v2(size_t *bytes, CUdevice) { return *bytes = total_bytes(), SUCCESS; }
// Everything belongs to the pool, as after a while on a device.
API cuMemGetInfo_v2(size_t *free, size_t *total) { return *free = 0, *total = total_bytes(), SUCCESS; }
API cuMemPoolGetAttribute(Handle, int attribute, void *value) {
    LOCKED;
    if (attribute != 5 && attribute != 7) return INVALID_VALUE;
    return *static_cast<uint64_t *>(value) = attribute == 5 ? total_bytes() : used_bytes(), SUCCESS;
}
API cuDeviceGetAttribute(int *value, int attribute, CUdevice) {
    // The number of multiprocessors, the generation, and whether memory comes from pools.
    *value = attribute == 16 ? 132 : attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 115 ? 1 : 0;
    return SUCCESS;
}
API cuDeviceGetDefaultMemPool(Handle *found, CUdevice) { return *found = &pool, SUCCESS; }
API cuMemPoolSetAttribute(Handle, int attribute, void *value) {
    counts["memory is kept"] = attribute == 4 && *static_cast<uint64_t *>(value) == UINT64_MAX;
    return SUCCESS;
}
API cuDevicePrimaryCtxRetain(Handle *found, CUdevice) { return *found = &context, SUCCESS; }
API cuDevicePrimaryCtxRelease_v2(CUdevice) { return SUCCESS; }
API cuCtxGetCurrent(Handle *found) { return *found = current_context, SUCCESS; }
API cuCtxSetCurrent(Handle wanted) { return current_context = wanted, SUCCESS; }
API cuCtxSynchronize() {
    LOCKED;
    return wait(), SUCCESS;
}
API cuStreamCreate(Handle *queue, unsigned) { return *queue = new int, SUCCESS; }
API cuStreamCreateWithPriority(Handle *queue, unsigned, int) { return *queue = new int, SUCCESS; }
API cuStreamDestroy_v2(Handle) { return SUCCESS; }
API cuStreamSynchronize(Handle queue) {
    LOCKED;
    return check_queue(queue, "a wait"), wait(), SUCCESS;
}
API cuStreamIsCapturing(Handle, int *status) { return *status = 0, SUCCESS; }
API cuMemAllocAsync(CUdeviceptr *address, size_t size, Handle queue) {
    LOCKED;
    check_queue(queue, "an allocation");
    if (size == 0) return INVALID_VALUE;
    return *address = allocate(size), *address ? SUCCESS : 2;
}
API cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
    LOCKED;
    if (size == 0) return INVALID_VALUE;
    return *address = allocate(size), *address ? SUCCESS : 2;
}
API cuMemFreeAsync(CUdeviceptr address, Handle queue) {
    LOCKED;
    check_queue(queue, "memory that is given back");
    if (address) give_back(address);
    return SUCCESS;
}
API cuMemFree_v2(CUdeviceptr address) {
    LOCKED;
    if (address) give_back(address);
    return SUCCESS;
}
API cuMemsetD8Async(CUdeviceptr to, unsigned char byte, size_t size, Handle queue) {
    LOCKED;
    return check_queue(queue, "a fill"), fill(to, byte, size), SUCCESS;
}
API cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, Handle queue) {
    LOCKED;
    return check_queue(queue, "a copy"), to_device(to, from, size), SUCCESS;
}
API cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, Handle queue) {
    LOCKED;
    return check_queue(queue, "a copy"), to_host(to, from, size), SUCCESS;
}
API cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t size, Handle queue) {
    LOCKED;
    return check_queue(queue, "a copy"), on_device(to, from, size), SUCCESS;
}
API cuModuleLoadData(Handle *module, const void *code) {
    LOCKED;
    modules.push_back(read_module(static_cast<const char *>(code)));
    counts["modules"]++;
    return *module = modules.back().get(), SUCCESS;
}
API cuModuleUnload(Handle) { return SUCCESS; }
API cuModuleGetFunction(Handle *function, Handle module, const char *name) {
    LOCKED;
    auto &functions = static_cast<Module *>(module)->functions;
    auto found = functions.find(name);
    if (found == functions.end()) return NOT_FOUND;
    return *function = found->second.get(), SUCCESS;
}
API cuFuncSetAttribute(Handle function, int attribute, int value) {
    LOCKED;
    if (attribute != 8 || value < 0 || unsigned(value) > max_shared_bytes) return INVALID_VALUE;
    return static_cast<Function *>(function)->shared_bytes = value, SUCCESS;
}
API cuLaunchKernel(
    Handle function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
    unsigned shared_bytes, Handle queue, void **arguments, void **) {
    LOCKED;
    check_queue(queue, "a launch");
    check_context("a launch");
    launch(*static_cast<Function *>(function), {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, arguments);
    return SUCCESS;
}
API cuGetErrorName(int, const char **text) { return *text = "CUDA_ERROR", SUCCESS; }
API cuGetErrorString(int code, const char **text) {
    static thread_local char message[64];
    std::snprintf(message, sizeof message, "the emulator's error %d", code);
    return *text = message, SUCCESS;
}
