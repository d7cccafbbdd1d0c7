#include "step_attention.h"

#include <algorithm>

namespace foveal {
namespace {

// Tokens of a prompt that go together: keys are read and transposed once for them.
constexpr int kBlockTokens = 32;
// Requests with at most this many new tokens take the path of single tokens: 16 guesses to verify (the most a grammar
// forces at once) and the token before them must give what they give one by one.
constexpr int kFewTokens = 17;

}  // namespace

StepAttention::Plan& StepAttention::plan_of(int window) {
  for (Plan& plan : plans_)
    if (plan.window == window) return plan;
  return plans_.front();
}

void StepAttention::prepare(const Step& step, const std::vector<int>& windows, int heads, int kv_heads, int head_dim,
                            int threads) {
  step_ = step;
  heads_ = heads, kv_heads_ = kv_heads, head_dim_ = head_dim;
  plans_.clear();
  int parts = 0;
  for (const int window : windows) {
    if (std::any_of(plans_.begin(), plans_.end(), [&](const Plan& plan) { return plan.window == window; })) continue;
    plans_.emplace_back();
    plans_.back().window = window;
    build(plans_.back());
    parts = std::max(parts, plans_.back().first_part.back());
  }
  sums_.reserve(static_cast<size_t>(parts) * heads * head_dim);
  most_.reserve(static_cast<size_t>(parts) * heads);
  total_.reserve(static_cast<size_t>(parts) * heads);
  if (scratch_.size() < static_cast<size_t>(threads)) scratch_.resize(threads);
  const int rows = kBlockTokens * (heads / kv_heads);
  for (Buffer<float>& scratch : scratch_)
    scratch.reserve(attention_scratch(rows, head_dim) + 2 * static_cast<size_t>(rows) * head_dim + 2 * rows);
}

void StepAttention::build(Plan& plan) const {
  plan.first_part.assign(step_.tokens + 1, 0);
  int part = 0;
  std::vector<Task> singles;
  for (int r = 0; r < step_.requests; ++r) {
    const int first = step_.q_starts[r], last = step_.q_starts[r + 1], start = step_.kv_lens[r] - (last - first);
    const bool single = last - first <= kFewTokens;
    for (int token = first; token < last && single; ++token) {
      plan.first_part[token] = part;
      const int position = start + token - first, low = low_of(position, plan.window), end = end_of(token, position);
      for (int from = low / kPart * kPart; from < end; from += kPart, ++part)
        for (int head = 0; head < kv_heads_; ++head)
          singles.push_back({r, token, 0, std::max(from, low), std::min(from + kPart, end), head, part});
    }
    for (int token = first; token < last && !single; token += kBlockTokens) {
      const int tokens = std::min(kBlockTokens, last - token);
      std::fill_n(plan.first_part.begin() + token, tokens, part);
      const int low = low_of(start + token - first, plan.window);
      int end = 0;
      for (int t = token; t < token + tokens; ++t) end = std::max(end, end_of(t, start + t - first));
      for (int head = 0; head < kv_heads_; ++head) plan.tasks.push_back({r, token, tokens, low, end, head, -1});
    }
  }
  plan.first_part[step_.tokens] = part;
  // Long tasks first, so that threads finish together.
  std::stable_sort(plan.tasks.begin(), plan.tasks.end(),
                   [](const Task& a, const Task& b) { return (a.to - a.from) * a.tokens > (b.to - b.from) * b.tokens; });
  std::stable_sort(singles.begin(), singles.end(),
                   [](const Task& a, const Task& b) { return a.to - a.from > b.to - b.from; });
  plan.tasks.insert(plan.tasks.end(), singles.begin(), singles.end());
}

void StepAttention::run(const Operations& ops, const KvLayer& kv, int window, const float* queries, int query_stride,
                        float* out, int thread) {
  Plan& plan = plan_of(window);
  const int group = heads_ / kv_heads_;
  for (;;) {
    const size_t index = plan.next.fetch_add(1, std::memory_order_relaxed);
    if (index >= plan.tasks.size()) return;
    const Task& task = plan.tasks[index];
    if (task.tokens > 0) {
      run_block(ops, kv, window, task, queries, query_stride, out, scratch_[thread].get());
      continue;
    }
    const AttentionSpan span{step_.block_tables + static_cast<int64_t>(task.request) * step_.table_stride,
                             step_.block_size, task.kv_head, task.from, task.to};
    const int64_t at = static_cast<int64_t>(task.part) * heads_ + task.kv_head * group;
    ops.attend_token(kv, span,
                     queries + static_cast<int64_t>(task.token) * query_stride + task.kv_head * group * head_dim_, group,
                     sums_.get() + at * head_dim_, most_.get() + at, total_.get() + at);
  }
}

void StepAttention::run_block(const Operations& ops, const KvLayer& kv, int window, const Task& task,
                              const float* queries, int query_stride, float* out, float* scratch) {
  const int group = heads_ / kv_heads_, rows = task.tokens * group, start = step_.q_starts[task.request];
  const int first_position = step_.kv_lens[task.request] - (step_.q_starts[task.request + 1] - start);
  float* block = scratch;
  float* finished = block + static_cast<int64_t>(rows) * head_dim_;
  int* lows = reinterpret_cast<int*>(finished + static_cast<int64_t>(rows) * head_dim_);
  int* ends = lows + rows;
  for (int t = 0; t < task.tokens; ++t) {
    const int token = task.token + t, position = first_position + token - start;
    const float* source = queries + static_cast<int64_t>(token) * query_stride + task.kv_head * group * head_dim_;
    std::copy_n(source, group * head_dim_, block + static_cast<int64_t>(t) * group * head_dim_);
    for (int g = 0; g < group; ++g)
      lows[t * group + g] = low_of(position, window), ends[t * group + g] = end_of(token, position);
  }
  const AttentionSpan span{step_.block_tables + static_cast<int64_t>(task.request) * step_.table_stride,
                           step_.block_size, task.kv_head, task.from, task.to};
  ops.attend_block(kv, span, block, lows, ends, rows, finished, reinterpret_cast<float*>(ends + rows));
  for (int t = 0; t < task.tokens; ++t)
    std::copy_n(finished + static_cast<int64_t>(t) * group * head_dim_, group * head_dim_,
                out + (static_cast<int64_t>(task.token + t) * heads_ + task.kv_head * group) * head_dim_);
}

void StepAttention::join(const Operations& ops, int window, int first, int last, float* out) const {
  const Plan& plan = plan_of(window);
  for (int token = first; token < last; ++token) {
    const int part = plan.first_part[token], parts = plan.first_part[token + 1] - part;
    if (parts == 0) continue;  // a token of a prompt: finished already
    for (int head = 0; head < heads_; ++head) {
      const int64_t at = static_cast<int64_t>(part) * heads_ + head;
      ops.join(sums_.get() + at * head_dim_, most_.get() + at, total_.get() + at, parts, heads_, head_dim_,
               out + (static_cast<int64_t>(token) * heads_ + head) * head_dim_);
    }
  }
}

}  // namespace foveal
