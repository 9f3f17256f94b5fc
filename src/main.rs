//! The binary: hands the command line to [`gift_host::cli`] and its status to the system.

use gift_host::script::CountingAllocator;

// A training step frees and takes many buffers of some megabytes; mimalloc keeps them instead of returning each to the
// system, which halves the page faults of a step. Counting them is what enforces the memory limit of Rhai scripts.
#[global_allocator]
static ALLOCATOR: CountingAllocator<mimalloc::MiMalloc> = CountingAllocator(mimalloc::MiMalloc);

fn main() -> std::process::ExitCode {
    gift_host::cli::main()
}
