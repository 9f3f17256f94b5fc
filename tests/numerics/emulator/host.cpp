// Page-locked memory of the program, to which the device copies while the program goes on, and events. What is copied there is what
// the device's memory held when it was the copy's turn; it arrives only when an event behind the copy, or all of the queue, is waited
// for, so that a wait which is missing shows.
#include "driver.h"

#include <cstdlib>
#include <deque>
#include <map>
#include <vector>

using emulator::fail;

namespace driver {
namespace {

struct Copy {
    unsigned char *to;
    std::vector<unsigned char> bytes;
    uint64_t number;
};

struct Event {
    uint64_t number; // of the last copy before it
};

// In the order of the queue.
std::deque<Copy> under_way;
uint64_t newest;
// Sizes by address.
std::map<uintptr_t, size_t> locked;

void arrive(uint64_t end) {
    for (; !under_way.empty() && under_way.front().number <= end; under_way.pop_front()) {
        std::memcpy(under_way.front().to, under_way.front().bytes.data(), under_way.front().bytes.size());
    }
}

} // namespace

bool is_page_locked(const void *place) {
    auto address = reinterpret_cast<uintptr_t>(place);
    auto after = locked.upper_bound(address);
    return after != locked.begin() && address < std::prev(after)->first + std::prev(after)->second;
}

void copy_later(void *to, const unsigned char *from, size_t size) {
    under_way.push_back({static_cast<unsigned char *>(to), {from, from + size}, ++newest});
}

void arrive_all() { arrive(newest); }

} // namespace driver

using namespace driver;
#define API extern "C" __attribute__((visibility("default"))) int
#define LOCKED std::lock_guard<std::recursive_mutex> guard(mutex)

API cuMemHostAlloc(void **memory, size_t size, unsigned) {
    LOCKED;
    count("page-locked allocations", 1);
    *memory = std::malloc(size);
    std::memset(*memory, 0xff, size);
    return locked[reinterpret_cast<uintptr_t>(*memory)] = size, 0;
}
API cuMemFreeHost(void *memory) {
    LOCKED;
    auto found = locked.find(reinterpret_cast<uintptr_t>(memory));
    if (found == locked.end()) fail("page-locked memory was given back that is not held");
    for (Copy &copy : under_way) {
        if (copy.to >= memory && copy.to < static_cast<unsigned char *>(memory) + found->second) {
            fail("page-locked memory was given back before a copy to it has arrived");
        }
    }
    locked.erase(found);
    return std::free(memory), 0;
}
API cuEventCreate(void **event, unsigned) {
    LOCKED;
    return count("events", 1), *event = new Event{0}, 0;
}
API cuEventRecord(void *event, void *queue) {
    LOCKED;
    check_queue(queue, "an event");
    return static_cast<Event *>(event)->number = newest, 0;
}
API cuEventSynchronize(void *event) {
    LOCKED;
    return count("waits", 1), arrive(static_cast<Event *>(event)->number), 0;
}
API cuStreamWaitEvent(void *, void *, unsigned) { return 0; }
API cuEventDestroy_v2(void *event) { return delete static_cast<Event *>(event), 0; }
