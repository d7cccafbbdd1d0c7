#include "row_sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "dispatch.h"

namespace foveal {
namespace {

constexpr double kNone = -std::numeric_limits<double>::infinity();
// Dividing by the temperature rounds: a little more than the window is collected, and compared exactly afterwards.
constexpr double kSlack = 1.001;

// In (0, 1): odd multiples of 2^-33.
double uniform(uint32_t hashed_id, DrawKey key) {
  uint32_t bits = (hashed_id + key.addend) * key.multiplier;
  // lowbias32 (C. Wellons, 2018)
  bits ^= bits >> 16;
  bits *= 0x7FEB352Du;
  bits ^= bits >> 15;
  bits *= 0x846CA68Bu;
  bits ^= bits >> 16;
  return (bits + 0.5) * 0x1p-32;
}

double gumbel(double u) { return -std::log(-std::log1p(-u)); }

}  // namespace

bool RowSampler::settle(const float* x, int n, const Filters& filters) {
  x_ = x, n_ = n, temperature_ = filters.temperature;
  const bool limited = filters.top_k > 0, nucleus = filters.top_p < 1.0;
  const bool filtered = limited || nucleus || filters.min_p > 0.0;
  const int most = static_cast<int>(ids_.size());
  float largest = 0.0f, total = 0.0f;
  const int found =
      operations().scan_logits(x, n, 1.0f / temperature_, static_cast<float>(kSlack * window_) * temperature_,
                               filtered ? nucleus && !limited : true, most, ids_.data(), &largest, &total);
  best_ = largest / temperature_;
  if (found == 0 || found > most || !std::isfinite(best_) || !std::isfinite(total)) return false;

  edge_ = static_cast<float>(best_ - window_);
  candidates_.clear();
  for (int i = 0; i < found; ++i) {
    const float value = x[ids_[i]] / temperature_;
    if (value >= edge_) candidates_.push_back({ids_[i], value, 0.0});
  }
  if (filtered) {
    double floor = kNone;
    if (!find_floor(filters, total, &floor) || floor < edge_) return false;
    const auto below = [least = static_cast<float>(floor)](const Candidate& c) {
      return static_cast<float>(c.value) < least;
    };
    candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), below), candidates_.end());
  }
  double head = 0.0;
  for (Candidate& c : candidates_) head += c.weight = std::exp(c.value - best_);
  log_tail_ = filtered ? kNone : std::log(std::max(total - head, 0.0)) + best_;
  return true;
}

// The lowest logit that top-k, then top-p over what is left, then min-p keep; false if the candidates do not tell.
// Candidates come off a heap, the largest first: mostly few of them are asked for.
bool RowSampler::find_floor(const Filters& filters, double total, double* floor) {
  const bool limited = filters.top_k > 0, nucleus = filters.top_p < 1.0;
  heap_.clear(), taken_.clear();
  if (limited || nucleus) {
    for (const Candidate& c : candidates_) heap_.push_back(c.value);
    std::make_heap(heap_.begin(), heap_.end());
  }
  const auto take = [this] {
    std::pop_heap(heap_.begin(), heap_.end());
    taken_.push_back(heap_.back());
    heap_.pop_back();
  };
  *floor = kNone;
  if (limited) {
    if (static_cast<size_t>(filters.top_k) > heap_.size()) return false;
    for (int k = 0; k < filters.top_k; ++k) take();
    *floor = taken_.back();
    while (!heap_.empty() && heap_.front() == *floor) take();
    heap_.clear();
  }
  if (nucleus) {
    if (limited) {
      total = 0.0;
      for (const double value : taken_) total += std::exp(value - best_);
    }
    const double wanted = filters.top_p * total;
    double sum = 0.0;
    size_t inside = 0;
    for (; sum < wanted; sum += std::exp(taken_[inside++] - best_)) {
      if (inside < taken_.size()) continue;
      if (heap_.empty()) return false;  // the nucleus goes on below what is in view
      take();
    }
    *floor = taken_.empty() ? best_ : taken_[inside > 0 ? inside - 1 : 0];
  }
  if (filters.min_p > 0.0) *floor = std::max(*floor, best_ + std::log(filters.min_p));
  return true;
}

int32_t RowSampler::draw(const uint32_t* hashed_ids, DrawKey key) {
  // A token's noise is -log(-log(1 - u)), and -log(1 - u) >= u: it cannot win unless u < weight * bound. That spares
  // nearly all logarithms.
  double highest = kNone, bound = std::numeric_limits<double>::infinity();
  int32_t winner = 0;
  for (const Candidate& c : candidates_) {
    const double u = uniform(hashed_ids[c.id], key);
    if (u >= c.weight * bound) continue;
    const double score = c.value + gumbel(u);
    if (score <= highest) continue;
    highest = score;
    winner = c.id;
    bound = std::exp(best_ - highest) * (1.0 + 1e-9);
  }
  if (log_tail_ == kNone || log_tail_ + gumbel(uniform(hashed_ids[n_], key)) <= highest) return winner;
  return draw_from_tail(uniform(hashed_ids[n_ + 1], key), winner);
}

// By the running sum of the tail's weights; `fallback` if rounding made up a tail that is not there.
int32_t RowSampler::draw_from_tail(double u, int32_t fallback) {
  constexpr int kChunk = 1024;
  const auto chunk_size = [&](int first) { return std::min(kChunk, n_ - first); };
  tail_sums_.clear();
  double total = 0.0;
  for (int first = 0; first < n_; first += kChunk) {
    tail_sums_.push_back(operations().sum_below(x_ + first, chunk_size(first), temperature_, edge_));
    total += tail_sums_.back();
  }
  const double wanted = u * total;
  double sum = 0.0;
  size_t chunk = 0;
  while (chunk < tail_sums_.size() && sum + tail_sums_[chunk] <= wanted) sum += tail_sums_[chunk++];
  if (chunk == tail_sums_.size()) return fallback;
  const int first = static_cast<int>(chunk) * kChunk;
  int32_t drawn = fallback;
  for (int i = first; i < first + chunk_size(first); ++i) {
    const float value = x_[i] / temperature_;
    if (!(value < edge_) || value == -std::numeric_limits<float>::infinity()) continue;
    drawn = i;
    sum += std::exp(value - edge_);
    if (sum > wanted) break;
  }
  return drawn;
}

}  // namespace foveal
