// Threads for one step, and the barrier between its phases.
#pragma once

#include <atomic>
#include <cstdint>

namespace foveal {

// All threads of a step meet here. They spin, because a phase lasts microseconds, and yield when that takes long: another
// process may have the core.
class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads) {}
  void wait();

 private:
  const int threads_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> round_{0};
};

// Calls body(context, thread) for each thread in [0, threads), the caller being thread 0.
//
// Where an OpenMP runtime is loaded already (torch brings one), its threads are used: they spin for a while after each of
// torch's operations, and threads of our own would wait for the core that they hold. Otherwise a pool of our own.
void run_threads(int threads, void (*body)(void* context, int thread), void* context);

// "openmp" or "own".
const char* thread_source();

template <typename Body>
void run_on(int threads, Body&& body) {
  if (threads <= 1) {
    body(0);
    return;
  }
  run_threads(
      threads, [](void* context, int thread) { (*static_cast<Body*>(context))(thread); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// The part of [0, count) that belongs to a thread.
struct Share {
  int first, last;
  Share(int count, int thread, int threads)
      : first(static_cast<int>(static_cast<int64_t>(count) * thread / threads)),
        last(static_cast<int>(static_cast<int64_t>(count) * (thread + 1) / threads)) {}
};

}  // namespace foveal
