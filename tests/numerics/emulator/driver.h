// What the files of the driver's stand-in share; see driver.cpp.
#pragma once
#include "emulator.h"

#include <mutex>

namespace driver {

// Held by whoever does anything.
extern std::recursive_mutex mutex;

// Whether kernels are counted and not run, and nothing is copied: `GIFT_EMULATOR_SKIP`, to see what the host does.
extern const bool is_skipping;

// Memory of the device; ends the process if an allocation that is held does not have it all.
unsigned char *memory_at(uint64_t address, size_t size, const char *what);

// Ends the process if work is not in a queue that was made for it.
void check_queue(const void *queue, const char *what);

// Ends the process if the thread has no context.
void check_context(const char *what);

// Whether the device copies to this place of the program's memory while the program goes on.
bool is_page_locked(const void *place);

// Such a copy. It arrives when it is waited for, all copies with `arrive_all`.
void copy_later(void *to, const unsigned char *from, size_t size);
void arrive_all();

// For the report.
void count(const std::string &what, size_t by);

// Runs a kernel of candle's; false if there is no loop for it.
bool run_plain(const std::string &name, unsigned blocks, void *const *arguments);

} // namespace driver
