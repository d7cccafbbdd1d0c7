// Products of a few rows with a panel of 32 outputs. Sums of a row are formed in the same order whatever the number of
// rows, so a token's result does not depend on what else is in the batch.

// Sums of a tile, in memory: the integer sums of one group need the registers.
template <int M>
struct Tile {
  alignas(64) float v[M][kPanel];

  void clear() {
    for (int m = 0; m < M; ++m) store(v[m], zero()), store(v[m] + 16, zero());
  }
  // v[m] += a * scale
  FOVEAL_INLINE void add_scaled(int m, F32 a0, F32 a1, F32 scale) {
    store(v[m], fma(a0, scale, load(v[m])));
    store(v[m] + 16, fma(a1, scale, load(v[m] + 16)));
  }
};

// Without this GCC lifts a tile's sums into registers, and then writes integer sums to memory at every step instead.
#define FOVEAL_SUMS_STAY_IN_MEMORY() asm volatile("" ::: "memory")

template <int M, WeightKind kKind>
static inline void float_tile(const Matrix& w, const Inputs& x, int row, int panel, Tile<M>& sum) {
  constexpr bool kWide = kKind == WeightKind::kFloat32;
  const float* a = x.values + static_cast<int64_t>(row) * x.stride;
  const int64_t at = static_cast<int64_t>(panel) * w.k * kPanel;
  const float* wide = static_cast<const float*>(w.data) + (kWide ? at : 0);
  const uint16_t* narrow = static_cast<const uint16_t*>(w.data) + (kWide ? 0 : at);
  F32 acc[M][2];
  repeat<M>([&](auto m) FOVEAL_INLINE { acc[m][0] = acc[m][1] = zero(); });
  for (int k = 0; k < w.k; ++k, wide += kPanel, narrow += kPanel) {
    const F32 w0 = kWide ? load(wide) : load_bfloat(narrow), w1 = kWide ? load(wide + 16) : load_bfloat(narrow + 16);
    if (M <= 2) prefetch(kWide ? static_cast<const void*>(wide + 1024) : narrow + 2048);
    if (M <= 2 && kWide) prefetch(wide + 1040);
    repeat<M>([&](auto m) FOVEAL_INLINE {
      const F32 input = set1(a[static_cast<int64_t>(m) * x.stride + k]);
      acc[m][0] = fma(input, w0, acc[m][0]);
      acc[m][1] = fma(input, w1, acc[m][1]);
    });
  }
  repeat<M>([&](auto m) FOVEAL_INLINE { store(sum.v[m], acc[m][0]), store(sum.v[m] + 16, acc[m][1]); });
}

template <int M>
static inline void int8_tile(const Matrix& w, const Inputs& x, int row, int panel, Tile<M>& sum) {
  const int groups = w.k / kGroup;
  const int64_t stride = w.k;
  const uint8_t* p = static_cast<const uint8_t*>(w.data) + static_cast<int64_t>(panel) * w.k * kPanel;
  const int8_t* a = x.codes + row * stride;
  const float* scales = x.scales + static_cast<int64_t>(row) * groups;
  const int32_t* seeds = x.seeds + static_cast<int64_t>(row) * groups;
  sum.clear();
  for (int g = 0; g < groups; ++g, ++scales, ++seeds) {
    I32 acc[M][2];
    repeat<M>([&](auto m) FOVEAL_INLINE { acc[m][0] = acc[m][1] = set1_int(seeds[m * groups]); });
    for (int s = 0; s < kGroup / 4; ++s, p += 4 * kPanel, a += 4) {
      const Bytes w0 = load_bytes(p), w1 = load_bytes(p + 64);
      if (M <= 2) prefetch(p + 4096), prefetch(p + 4160);
      repeat<M>([&](auto m) FOVEAL_INLINE {
        acc[m][0] = dot_bytes(acc[m][0], w0, a + m * stride);
        acc[m][1] = dot_bytes(acc[m][1], w1, a + m * stride);
      });
    }
    repeat<M>([&](auto m) FOVEAL_INLINE {
      sum.add_scaled(m, to_float(acc[m][0]), to_float(acc[m][1]), set1(scales[m * groups]));
    });
    FOVEAL_SUMS_STAY_IN_MEMORY();
  }
}

template <int M, bool kHasMinimums>
static inline void int4_tile(const Matrix& w, const Inputs& x, int row, int panel, Tile<M>& sum) {
  const int groups = w.k / kGroup, per_scale = w.group / kGroup, scale_rows = w.k / w.group;
  const int64_t stride = w.k;
  const uint8_t* p = static_cast<const uint8_t*>(w.data) + static_cast<int64_t>(panel) * w.k * (kPanel / 2);
  const int8_t* a = x.codes + row * stride;
  const float* scales = x.scales + static_cast<int64_t>(row) * groups;
  const float* sums = x.sums + static_cast<int64_t>(row) * groups;
  const int32_t* seeds = x.seeds + static_cast<int64_t>(row) * groups;
  sum.clear();
  for (int g = 0; g < groups; ++g, ++scales, ++seeds, ++sums) {
    I32 acc[M][2];
    repeat<M>([&](auto m) FOVEAL_INLINE { acc[m][0] = acc[m][1] = set1_int(seeds[m * groups]); });
    for (int t = 0; t < kGroup / 8; ++t, p += 4 * kPanel, a += 8) {
      const Bytes v0 = load_bytes(p), v1 = load_bytes(p + 64);
      if (M <= 2) prefetch(p + 4096), prefetch(p + 4160);
      const Bytes low0 = low_nibbles(v0), low1 = low_nibbles(v1);
      const Bytes high0 = high_nibbles(v0), high1 = high_nibbles(v1);
      repeat<M>([&](auto m) FOVEAL_INLINE {
        acc[m][0] = dot_nibbles(acc[m][0], low0, a + m * stride);
        acc[m][1] = dot_nibbles(acc[m][1], low1, a + m * stride);
        acc[m][0] = dot_nibbles(acc[m][0], high0, a + m * stride + 4);
        acc[m][1] = dot_nibbles(acc[m][1], high1, a + m * stride + 4);
      });
    }
    const int64_t at = (static_cast<int64_t>(panel) * scale_rows + g / per_scale) * kPanel;
    const F32 s0 = load_half(w.scales + at), s1 = load_half(w.scales + at + 16);
    repeat<M>([&](auto m) FOVEAL_INLINE {
      sum.add_scaled(m, mul(to_float(acc[m][0]), s0), mul(to_float(acc[m][1]), s1), set1(scales[m * groups]));
    });
    if constexpr (kHasMinimums) {
      const F32 low0 = load_half(w.minimums + at), low1 = load_half(w.minimums + at + 16);
      repeat<M>([&](auto m) FOVEAL_INLINE { sum.add_scaled(m, low0, low1, set1(sums[m * groups])); });
    }
    FOVEAL_SUMS_STAY_IN_MEMORY();
  }
}

static inline F32 silu(F32 x) { return div(x, add(set1(1.0f), exponential(sub(zero(), x)))); }

static inline void add_or_store(float* y, F32 v, int lanes, bool adds) {
  if (lanes <= 0) return;
  if (lanes >= 16) {
    store(y, adds ? add(load(y), v) : v);
  } else {
    store_n(y, adds ? add(load_n(y, lanes), v) : v, lanes);
  }
}

template <int M>
static inline void finish_tile(const Matrix& w, const Tile<M>& sum, int row, int panel, const Output& out) {
  const int column = panel * kPanel;
  for (int m = 0; m < M; ++m) {
    F32 a = load(sum.v[m]), b = load(sum.v[m] + 16);
    if (w.channel != nullptr) a = mul(a, load(w.channel + column)), b = mul(b, load(w.channel + column + 16));
    if (w.bias != nullptr) a = add(a, load(w.bias + column)), b = add(b, load(w.bias + column + 16));
    float* y = out.y + static_cast<int64_t>(row + m) * out.stride;
    if (out.finish == Finish::kSiluMul) {
      const int at = panel * (kPanel / 2);
      add_or_store(y + at, mul(silu(a), b), out.columns - at, false);
    } else {
      const bool adds = out.finish == Finish::kAdd;
      add_or_store(y + column, a, out.columns - column, adds);
      add_or_store(y + column + 16, b, out.columns - column - 16, adds);
    }
  }
}

template <int M>
static void tile(const Matrix& w, const Inputs& x, int row, int panel, const Output& out) {
  Tile<M> sum;
  switch (w.kind) {
    case WeightKind::kFloat32:
      float_tile<M, WeightKind::kFloat32>(w, x, row, panel, sum);
      break;
    case WeightKind::kBfloat16:
      float_tile<M, WeightKind::kBfloat16>(w, x, row, panel, sum);
      break;
    case WeightKind::kInt8:
      int8_tile<M>(w, x, row, panel, sum);
      break;
    case WeightKind::kInt4:
      if (w.minimums != nullptr) {
        int4_tile<M, true>(w, x, row, panel, sum);
      } else {
        int4_tile<M, false>(w, x, row, panel, sum);
      }
      break;
  }
  finish_tile<M>(w, sum, row, panel, out);
}

// Rows go in tiles of these sizes, the largest that still fit first.
static inline int tile_rows(int left) {
  if (left >= kMaxRows) return kMaxRows;
  return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

static void multiply(const Matrix& w, const Inputs& x, int rows, int first, int last, const Output& out) {
  // The panel stays in the cache while all rows pass by.
  for (int panel = first; panel < last; ++panel) {
    for (int row = 0; row < rows;) {
      const int taken = tile_rows(rows - row);
      if (taken == kMaxRows) tile<kMaxRows>(w, x, row, panel, out);
      if constexpr (kMaxRows > 2) {
        if (taken == 8) tile<8>(w, x, row, panel, out);
        if (taken == 4) tile<4>(w, x, row, panel, out);
        if (taken == 2) tile<2>(w, x, row, panel, out);
      }
      if (taken == 1) tile<1>(w, x, row, panel, out);
      row += taken;
    }
  }
}
