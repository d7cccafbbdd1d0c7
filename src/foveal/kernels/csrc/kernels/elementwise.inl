// Calls f(Index<0>), .. f(Index<N - 1>). Loops over arrays of registers are written so because compilers unroll too late
// to keep such arrays in registers.
#define FOVEAL_INLINE __attribute__((always_inline))

template <int I>
struct Index {
  constexpr operator int() const { return I; }
};

template <int N, typename F>
FOVEAL_INLINE static inline void repeat(F&& f) {
  if constexpr (N > 0) {
    repeat<N - 1>(f);
    f(Index<N - 1>{});
  }
}

// exp(x), relative error below 2e-7. Source: Cephes expf, range reduction by ln 2 in two parts.
static inline F32 exponential(F32 x) {
  x = max(set1(-87.0f), min(set1(88.0f), x));
  const F32 whole = nearest(mul(x, set1(1.44269504088896341f)));
  F32 r = fma(whole, set1(-0.693359375f), x);
  r = fma(whole, set1(2.12194440e-4f), r);
  F32 p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = fma(p, mul(r, r), add(r, set1(1.0f)));
  return mul(p, power_of_two(whole));
}

// Codes of 16 groups go side by side: alone each would wait for its own largest value, then for two divisions.
static void quantise(const float* x, int k, int padded, int zero_point, int8_t* codes, float* scales, int32_t* seeds,
                     float* sums) {
  constexpr int kTogether = 16;
  alignas(64) float lanes[kTogether][16], inverse[kTogether], code_sums[kTogether];
  const auto read = [&](int at, F32& a, F32& b) FOVEAL_INLINE {
    const int left = k - at;
    if (left >= kGroup) {
      a = load(x + at), b = load(x + at + 16);
    } else {
      a = left > 0 ? load_n(x + at, left < 16 ? left : 16) : zero();
      b = left > 16 ? load_n(x + at + 16, left - 16) : zero();
    }
  };
  for (int first = 0; first < padded / kGroup; first += kTogether) {
    const int left = padded / kGroup - first, count = left < kTogether ? left : kTogether;
    for (int g = count; g < kTogether; ++g) store(lanes[g], zero());
    for (int g = 0; g < count; ++g) {
      F32 a, b;
      read((first + g) * kGroup, a, b);
      store(lanes[g], max(abs(a), abs(b)));
    }
    alignas(64) float most[kTogether];
    store(most, largest_of_each(lanes));
    for (int g = 0; g < count; ++g) {
      // Smallest normal float: the inverse stays finite, and what is smaller rounds to zero anyway.
      const bool any = most[g] > 1.5e-36f;
      scales[first + g] = any ? most[g] / 127.0f : 0.0f;
      inverse[g] = any ? 127.0f / most[g] : 0.0f;
    }
    for (int g = 0; g < count; ++g) {
      const int at = (first + g) * kGroup;
      F32 a, b;
      read(at, a, b);
      const F32 factor = set1(inverse[g]);
      const I32 qa = to_int(mul(a, factor)), qb = to_int(mul(b, factor));
      store_int8(codes + at, qa);
      store_int8(codes + at + 16, qb);
      store(lanes[g], to_float(add_int(qa, qb)));
    }
    store(code_sums, sum_of_each(lanes));  // whole numbers below 2^13: exact
    for (int g = 0; g < count; ++g) {
      seeds[first + g] = -zero_point * static_cast<int32_t>(code_sums[g]);
      sums[first + g] = scales[first + g] * code_sums[g];
    }
  }
}

static void rms_norm(const float* x, const float* weight, int width, float epsilon, float* y) {
  F32 squares = zero();
  int i = 0;
  for (; i + 16 <= width; i += 16) {
    const F32 v = load(x + i);
    squares = fma(v, v, squares);
  }
  if (i < width) {
    const F32 v = load_n(x + i, width - i);
    squares = fma(v, v, squares);
  }
  const F32 factor = set1(1.0f / ::sqrtf(reduce_add(squares) / static_cast<float>(width) + epsilon));
  for (i = 0; i + 16 <= width; i += 16) store(y + i, mul(mul(load(x + i), factor), load(weight + i)));
  if (i < width) {
    const int n = width - i;
    store_n(y + i, mul(mul(load_n(x + i, n), factor), load_n(weight + i, n)), n);
  }
}

static void rope(float* x, const float* cos, const float* sin, int head_dim) {
  const int half = head_dim / 2;
  for (int i = 0; i < half; i += 16) {
    const int n = half - i < 16 ? half - i : 16;
    const F32 low = load_n(x + i, n), high = load_n(x + half + i, n);
    const F32 new_low = sub(mul(low, load_n(cos + i, n)), mul(high, load_n(sin + i, n)));
    const F32 new_high = fma(low, load_n(sin + half + i, n), mul(high, load_n(cos + half + i, n)));
    store_n(x + i, new_low, n);
    store_n(x + half + i, new_high, n);
  }
}

// Codes and the scale of one head.
static float quantise_head(const float* x, int width, int8_t* codes) {
  F32 most = zero();
  for (int i = 0; i < width; i += 16) most = max(most, abs(load_n(x + i, width - i < 16 ? width - i : 16)));
  const float largest = reduce_max(most);
  const F32 inverse = set1(largest > 1.5e-36f ? 127.0f / largest : 0.0f);
  for (int i = 0; i < width; i += 16) {
    const int n = width - i < 16 ? width - i : 16;
    int8_t lanes[16];
    store_int8(lanes, to_int(mul(load_n(x + i, n), inverse)));
    __builtin_memcpy(codes + i, lanes, n);
  }
  return largest > 1.5e-36f ? largest / 127.0f : 0.0f;
}

// What lies beyond the range of halves becomes their largest, never an infinity.
static void store_halves(const float* x, int width, uint16_t* halves) {
  const F32 most = set1(65504.0f), least = set1(-65504.0f);
  for (int i = 0; i < width; i += 16) {
    const int n = width - i < 16 ? width - i : 16;
    uint16_t lanes[16];
    store_half(lanes, max(least, min(most, load_n(x + i, n))));
    __builtin_memcpy(halves + i, lanes, sizeof(uint16_t) * n);
  }
}

static void store_kv(const KvLayer& kv, int64_t slot, int head, const float* key, const float* value) {
  const int64_t row = slot * kv.kv_heads + head, at = row * kv.head_dim;
  switch (kv.kind) {
    case KvKind::kFloat32:
      __builtin_memcpy(static_cast<float*>(kv.key) + at, key, sizeof(float) * kv.head_dim);
      __builtin_memcpy(static_cast<float*>(kv.value) + at, value, sizeof(float) * kv.head_dim);
      break;
    case KvKind::kFloat16:
      store_halves(key, kv.head_dim, static_cast<uint16_t*>(kv.key) + at);
      store_halves(value, kv.head_dim, static_cast<uint16_t*>(kv.value) + at);
      break;
    case KvKind::kInt8:
      kv.key_scales[row] = quantise_head(key, kv.head_dim, static_cast<int8_t*>(kv.key) + at);
      kv.value_scales[row] = quantise_head(value, kv.head_dim, static_cast<int8_t*>(kv.value) + at);
      break;
  }
}

static void gather(const Matrix& w, int64_t row, float* out) {
  const int64_t panel = row / kPanel;
  const int lane = static_cast<int>(row % kPanel), group = w.scales == nullptr ? w.k : w.group;
  const uint8_t* p = static_cast<const uint8_t*>(w.data) + panel * w.k * kPanel + lane * 4;
  for (int g = 0; g < w.k / group; ++g, out += group) {
    float scale = w.channel[row];
    if (w.scales != nullptr) {
      alignas(64) float relative[16];
      store(relative, load_half(w.scales + (panel * (w.k / group) + g) * kPanel + lane / 16 * 16));
      scale *= relative[lane % 16];
    }
    for (int k = 0; k < group; k += 4, p += 4 * kPanel)
      for (int j = 0; j < 4; ++j) out[k + j] = scale * (static_cast<int>(p[j]) - 128);
  }
}
