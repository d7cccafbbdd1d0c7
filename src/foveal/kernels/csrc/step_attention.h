// Attention of one layer for all requests of a step, cut into tasks for threads.
#pragma once

#include <atomic>
#include <vector>

#include "operations.h"
#include "rows_buffer.h"
#include "thread_team.h"

namespace foveal {

// Rows of a step: see AttentionBatch. All pointers are valid during the step only.
struct Step {
  int tokens, requests;
  const int64_t* slots;         // [tokens]
  const int64_t* block_tables;  // [requests, table_stride]
  int table_stride;
  const int32_t* q_starts;      // [requests + 1]
  const int32_t* kv_lens;       // [requests]
  const int32_t* visible_ends;  // [tokens] or null: end of what a token sees; null is causal
  int block_size;
};

class StepAttention {
 public:
  // Call before the threads start. `window` 0 is none.
  void prepare(const Step& step, const std::vector<int>& windows, int heads, int kv_heads, int head_dim, int threads);

  // All threads together, then a barrier: queries [tokens, query_stride] -> out [tokens, heads * head_dim] for prompts,
  // partial results for single tokens.
  void run(const Operations& ops, const KvLayer& kv, int window, const float* queries, int query_stride, float* out,
           int thread);

  // After that barrier: the single tokens among [first, last) into out.
  void join(const Operations& ops, int window, int first, int last, float* out) const;

  // Every thread that has passed a barrier after `run` may call it; before the next `run` there must be another barrier.
  void rewind(int window) { plan_of(window).next.store(0, std::memory_order_relaxed); }

 private:
  struct Task {
    int request, token, tokens;  // tokens > 0: a block of a prompt
    int from, to, kv_head, part;
  };
  struct Plan {
    int window = 0;
    std::vector<Task> tasks;
    std::vector<int> first_part;  // [tokens + 1]
    std::atomic<int> next{0};
    Plan() = default;
    Plan(Plan&& other) noexcept
        : window(other.window), tasks(std::move(other.tasks)), first_part(std::move(other.first_part)) {}
  };

  Plan& plan_of(int window);
  const Plan& plan_of(int window) const { return const_cast<StepAttention*>(this)->plan_of(window); }
  void build(Plan& plan) const;
  int low_of(int position, int window) const { return window > 0 && position >= window ? position - window + 1 : 0; }
  int end_of(int token, int position) const { return step_.visible_ends ? step_.visible_ends[token] : position + 1; }
  void run_block(const Operations& ops, const KvLayer& kv, int window, const Task& task, const float* queries,
                 int query_stride, float* out, float* scratch);

  Step step_{};
  int heads_ = 0, kv_heads_ = 0, head_dim_ = 0;
  std::vector<Plan> plans_;
  Buffer<float> sums_, most_, total_;
  std::vector<Buffer<float>> scratch_;
};

}  // namespace foveal
