#include "thread_team.h"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <dlfcn.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace foveal {
namespace {

constexpr int kSpins = 256;  // some 15 microseconds

void relax(int spin) {
  if (spin >= kSpins) {
    std::this_thread::yield();
    return;
  }
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// GNU OpenMP's entry point behind `#pragma omp parallel`, and the size of the team that a thread is in.
struct OpenMp {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
  int (*team_size)() = nullptr;
  explicit operator bool() const { return parallel != nullptr && team_size != nullptr; }
};

// If that library is loaded.
OpenMp find_openmp() {
  OpenMp found;
#if defined(__linux__)
  if (void* library = dlopen("libgomp.so.1", RTLD_LAZY | RTLD_NOLOAD)) {
    found.parallel = reinterpret_cast<decltype(found.parallel)>(dlsym(library, "GOMP_parallel"));
    found.team_size = reinterpret_cast<decltype(found.team_size)>(dlsym(library, "omp_get_num_threads"));
  }
#endif
  return found;
}

struct Job {
  void (*body)(void*, int);
  void* context;
  int (*team_size)();
  int threads;
  std::atomic<int> next_thread{0};
  std::atomic<bool> refused{false};
};

void run_openmp_thread(void* data) {
  Job& job = *static_cast<Job*>(data);
  // OMP_THREAD_LIMIT or OMP_DYNAMIC may grant fewer, and a barrier would wait for the others for ever.
  if (job.team_size() != job.threads) {
    job.refused.store(true, std::memory_order_relaxed);
    return;
  }
  job.body(job.context, job.next_thread.fetch_add(1));
}

// Workers sleep on a condition between jobs.
class Pool {
 public:
  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  void run(int threads, void (*body)(void*, int), void* context) {
    std::lock_guard one_at_a_time(run_mutex_);
    {
      std::lock_guard lock(mutex_);
      while (static_cast<int>(workers_.size()) < threads - 1) {
        const int index = static_cast<int>(workers_.size()) + 1;
        workers_.emplace_back([this, index, seen = round_] { work(index, seen); });
      }
      body_ = body, context_ = context, active_ = threads;
      running_.store(threads - 1, std::memory_order_relaxed);
      ++round_;
    }
    wake_.notify_all();
    body(context, 0);
    for (int spin = 0; running_.load(std::memory_order_acquire) != 0; ++spin) relax(spin);
  }

 private:
  void work(int index, uint64_t seen) {
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return stopping_ || round_ != seen; });
        if (stopping_) return;
        seen = round_;
        if (index >= active_) continue;
      }
      body_(context_, index);
      running_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::mutex run_mutex_, mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
  void (*body_)(void*, int) = nullptr;
  void* context_ = nullptr;
  int active_ = 0;
  uint64_t round_ = 0;
  bool stopping_ = false;
  std::atomic<int> running_{0};
};

const OpenMp& openmp() {
  // Looked up once, at the first parallel step: by then torch is loaded if it will be.
  static const OpenMp found = find_openmp();
  return found;
}

}  // namespace

void Barrier::wait() {
  if (threads_ == 1) return;
  const uint32_t round = round_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  for (int spin = 0; round_.load(std::memory_order_acquire) == round; ++spin) relax(spin);
}

void run_threads(int threads, void (*body)(void*, int), void* context) {
  if (const OpenMp& team = openmp()) {
    Job job{body, context, team.team_size, threads};
    team.parallel(run_openmp_thread, &job, static_cast<unsigned>(threads), 0);
    if (!job.refused.load(std::memory_order_relaxed)) return;
  }
  static Pool pool;
  pool.run(threads, body, context);
}

const char* thread_source() { return openmp() ? "openmp" : "own"; }

}  // namespace foveal
