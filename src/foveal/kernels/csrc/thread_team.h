// Threads for one step, and the barrier between its phases.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

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

// Panels of a product that a thread claims at once: some microseconds of work, and what a tile of many rows is wide.
constexpr int kClaimedPanels = 2;

// Work of several phases that is claimed piece by piece: each thread takes from the front of its own share, where the
// processor has already begun to read ahead, then from the shares of threads that are late (another process may have
// their core). A barrier must separate the phases.
class Claims {
 public:
  // Before the threads start.
  void begin(int threads) {
    if (threads > threads_) cursors_ = std::make_unique<Cursor[]>(kPhases * threads), threads_ = threads;
    for (int i = 0; i < kPhases * threads_; ++i) cursors_[i].taken.store(0, std::memory_order_relaxed);
  }

  // Phases count up by one, the same on all threads; work(first, last) covers [0, count) in pieces of `step` at most.
  template <typename Work>
  void run(int phase, int count, int step, int thread, int threads, Work&& work) {
    Cursor* cursors = cursors_.get() + phase % kPhases * threads_;
    // Nobody reads these: all have left the phase before the last one.
    Cursor& next = cursors_[(phase + 1) % kPhases * threads_ + thread];
    next.taken.store(0, std::memory_order_relaxed);
    for (int i = 0; i < threads; ++i) {
      const int owner = thread + i < threads ? thread + i : thread + i - threads;
      const Share share(count, owner, threads);
      for (;;) {
        const int first = share.first + cursors[owner].taken.fetch_add(step, std::memory_order_relaxed);
        if (first >= share.last) break;
        work(first, first + step < share.last ? first + step : share.last);
      }
    }
  }

 private:
  static constexpr int kPhases = 3;
  struct alignas(64) Cursor {
    std::atomic<int> taken{0};
  };
  std::unique_ptr<Cursor[]> cursors_;
  int threads_ = 0;
};

}  // namespace foveal
