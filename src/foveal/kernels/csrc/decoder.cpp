#include "decoder.h"

#include <algorithm>

#include "dispatch.h"

namespace foveal {
namespace {

// Up to here every thread prepares all rows for itself: cheaper than to share the work and wait for the others.
constexpr int kPrivateRows = 2;

Inputs plain(const float* values, int stride) { return {values, stride, nullptr, nullptr, nullptr, nullptr}; }

int panels_of(const Matrix& w) { return w.n / kPanel; }

}  // namespace

void Decoder::reserve(int tokens, int threads) {
  const int attended = shape_.heads * shape_.head_dim;
  const int widest = std::max({shape_.hidden, attended, shape_.intermediate});
  rows_.reserve(tokens, widest);
  normed_.reserve(static_cast<size_t>(tokens) * shape_.hidden);
  qkv_.reserve(static_cast<size_t>(tokens) * (attended + 2 * shape_.kv_heads * shape_.head_dim));
  attended_.reserve(static_cast<size_t>(tokens) * attended);
  hidden_.reserve(static_cast<size_t>(tokens) * shape_.intermediate);
  claims_.begin(threads);
  if (private_.size() < static_cast<size_t>(threads)) private_.resize(threads);
  for (Private& own : private_) {
    own.rows.reserve(kPrivateRows, widest);
    own.floats.reserve(static_cast<size_t>(kPrivateRows) * widest);
  }
}

void Decoder::run(const Step& step, const std::vector<KvLayer>& kv, const float* cos, const float* sin, float* x,
                  int threads) {
  const Operations& ops = operations();
  const int tokens = step.tokens, hidden = shape_.hidden, heads = shape_.heads, kv_heads = shape_.kv_heads;
  const int head_dim = shape_.head_dim, intermediate = shape_.intermediate;
  const int attended_width = heads * head_dim, qkv_width = attended_width + 2 * kv_heads * head_dim;
  const bool shares = tokens > kPrivateRows;
  reserve(tokens, threads);
  std::vector<int> windows;
  for (const Layer& layer : layers_) windows.push_back(layer.window);
  attention_.prepare(step, windows, heads, kv_heads, head_dim, threads);
  Barrier barrier(threads);

  run_on(threads, [&](int thread) {
    Private& own = private_[thread];
    const Share all(tokens, thread, threads);
    const int first = shares ? all.first : 0, last = shares ? all.last : tokens;
    RowsBuffer& rows = shares ? rows_ : own.rows;
    float* normed = shares ? normed_.get() : own.floats.get();
    float* qkv = qkv_.get();

    const auto meet = [&] {
      if (shares) barrier.wait();
    };
    // Inputs of a product from rows [.., width]; for float weights the rows themselves.
    const auto prepared = [&](const Matrix& w, const float* values, int width) {
      if (!w.is_quantised()) {
        meet();
        return plain(values, width);
      }
      rows.fill(ops, w, values, width, width, first, last);
      meet();
      return rows.inputs();
    };
    const auto norm = [&](const float* weight) {
      for (int t = first; t < last; ++t)
        ops.rms_norm(x + static_cast<int64_t>(t) * hidden, weight, hidden, shape_.epsilon,
                     normed + static_cast<int64_t>(t) * hidden);
    };
    int products = 0;
    const auto multiply = [&](const Matrix& w, const Inputs& inputs, const Output& out) {
      claims_.run(products++, panels_of(w), kClaimedPanels, thread, threads,
                  [&](int first, int last) { ops.multiply(w, inputs, tokens, first, last, out); });
      barrier.wait();
    };

    for (size_t index = 0; index < layers_.size(); ++index) {
      const Layer& layer = layers_[index];
      norm(layer.input_norm);
      multiply(layer.qkv, prepared(layer.qkv, normed, hidden), {qkv, qkv_width, qkv_width, Finish::kStore});

      // One unit is a KV head with the queries that read it.
      const int group = heads / kv_heads;
      const Share units(tokens * kv_heads, thread, threads);
      for (int unit = units.first; unit < units.last; ++unit) {
        const int t = unit / kv_heads, head = unit % kv_heads;
        float* row = qkv + static_cast<int64_t>(t) * qkv_width;
        float* key = row + attended_width + head * head_dim;
        const float *c = cos + static_cast<int64_t>(t) * head_dim, *s = sin + static_cast<int64_t>(t) * head_dim;
        for (int g = 0; g < group; ++g) {
          float* query = row + (head * group + g) * head_dim;
          if (layer.query_norm) ops.rms_norm(query, layer.query_norm, head_dim, shape_.qk_epsilon, query);
          ops.rope(query, c, s, head_dim);
          for (int i = 0; i < head_dim; ++i) query[i] *= shape_.scale;
        }
        if (layer.key_norm) ops.rms_norm(key, layer.key_norm, head_dim, shape_.qk_epsilon, key);
        ops.rope(key, c, s, head_dim);
        ops.store_kv(kv[index], step.slots[t], head, key, key + kv_heads * head_dim);
      }
      barrier.wait();

      attention_.run(ops, kv[index], layer.window, qkv, qkv_width, attended_.get(), thread);
      barrier.wait();
      // So few tokens are never a prompt's block: every row comes out of `join`.
      float* joined = shares ? attended_.get() : own.floats.get();
      attention_.join(ops, layer.window, first, last, joined);
      multiply(layer.out, prepared(layer.out, joined, attended_width), {x, hidden, hidden, Finish::kAdd});
      if (thread == 0) attention_.rewind(layer.window);

      norm(layer.mlp_norm);
      multiply(layer.gate_up, prepared(layer.gate_up, normed, hidden),
               {hidden_.get(), intermediate, intermediate, Finish::kSiluMul});
      multiply(layer.down, prepared(layer.down, hidden_.get(), intermediate), {x, hidden, hidden, Finish::kAdd});
    }
    // The last product's barrier has passed: each thread may normalise its share in place.
    for (int t = all.first; t < all.last; ++t)
      ops.rms_norm(x + static_cast<int64_t>(t) * hidden, final_norm_, hidden, shape_.epsilon,
                   x + static_cast<int64_t>(t) * hidden);
  });
}

}  // namespace foveal
