// Tokens drawn from rows of logits with temperature, top-k, top-p and min-p.
#pragma once

#include <cstdint>
#include <vector>

namespace foveal {

struct Filters {
  float temperature;
  int top_k;  // 0: all
  double top_p, min_p;
};

// What one draw mixes into the hash of every token id.
struct DrawKey {
  uint32_t addend, multiplier;
};

// One thread's: room for the candidates of the row at hand.
//
// A row is settled if the tokens within `window` nats of its best tell what may be drawn: these, and all others as one
// lump, the tail, of their summed weight. Only if the lump wins, which is rare, is a token of the tail looked for.
class RowSampler {
 public:
  RowSampler(double window, int most) : window_(window), ids_(most) {}

  // Finds the candidates of x [n], which must outlive the draws. False where the window does not settle the row: a flat
  // distribution with more than `most` candidates, a wide nucleus, NaN where a sum of all weights is needed.
  bool settle(const float* x, int n, const Filters& filters);
  // The token of the settled row with the largest sum of logit and noise. hashed_ids [n + 2] covers the vocabulary, the
  // lump and the choice within it.
  int32_t draw(const uint32_t* hashed_ids, DrawKey key);

 private:
  struct Candidate {
    int32_t id;
    double value, weight;  // logit / temperature, and its exponential relative to the best one's
  };
  bool find_floor(const Filters& filters, double total, double* floor);
  int32_t draw_from_tail(double u, int32_t fallback);

  const double window_;
  const float* x_ = nullptr;
  int n_ = 0;
  float temperature_ = 1.0f, edge_ = 0.0f;  // the tail is what lies below the edge, divided by the temperature
  double best_ = 0.0, log_tail_ = 0.0;
  std::vector<int32_t> ids_;
  std::vector<Candidate> candidates_;
  std::vector<double> heap_, taken_;
  std::vector<float> tail_sums_;
};

}  // namespace foveal
