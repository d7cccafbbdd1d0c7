// Products of a few rows with a panel of 32 outputs. Sums of a row are formed in the same order whatever the number of
// rows, so a token's result does not depend on what else is in the batch.

template <int M>
struct Tile {
  F32 v[M][2];
};

template <int M>
static inline void float_tile(const Matrix& w, const Inputs& x, int row, int panel, Tile<M>& sum) {
  const float* a = x.values + static_cast<int64_t>(row) * x.stride;
  const float* p = static_cast<const float*>(w.data) + static_cast<int64_t>(panel) * w.k * kPanel;
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) sum.v[m][0] = sum.v[m][1] = zero();
  for (int k = 0; k < w.k; ++k, p += kPanel) {
    const F32 w0 = load(p), w1 = load(p + 16);
    if (M == 1) prefetch(p + 16 * kPanel), prefetch(p + 16 * kPanel + 16);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const F32 input = set1(a[static_cast<int64_t>(m) * x.stride + k]);
      sum.v[m][0] = fma(input, w0, sum.v[m][0]);
      sum.v[m][1] = fma(input, w1, sum.v[m][1]);
    }
  }
}

template <int M>
static inline void bfloat_tile(const Matrix& w, const Inputs& x, int row, int panel, Tile<M>& sum) {
  const float* a = x.values + static_cast<int64_t>(row) * x.stride;
  const uint16_t* p = static_cast<const uint16_t*>(w.data) + static_cast<int64_t>(panel) * w.k * kPanel;
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) sum.v[m][0] = sum.v[m][1] = zero();
  for (int k = 0; k < w.k; ++k, p += kPanel) {
    const F32 w0 = load_bfloat(p), w1 = load_bfloat(p + 16);
    if (M == 1) prefetch(p + 32 * kPanel);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const F32 input = set1(a[static_cast<int64_t>(m) * x.stride + k]);
      sum.v[m][0] = fma(input, w0, sum.v[m][0]);
      sum.v[m][1] = fma(input, w1, sum.v[m][1]);
    }
  }
}

template <int M>
static inline void int8_tile(const Matrix& w, const Inputs& x, int row, int panel, Tile<M>& sum) {
  const int groups = w.k / kGroup;
  const uint8_t* p = static_cast<const uint8_t*>(w.data) + static_cast<int64_t>(panel) * w.k * kPanel;
  const int8_t* a = x.codes + static_cast<int64_t>(row) * w.k;
  const float* scales = x.scales + static_cast<int64_t>(row) * groups;
  const int32_t* seeds = x.seeds + static_cast<int64_t>(row) * groups;
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) sum.v[m][0] = sum.v[m][1] = zero();
  for (int g = 0; g < groups; ++g, a += kGroup) {
    I32 acc[M][2];
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) acc[m][0] = acc[m][1] = set1_int(seeds[m * groups + g]);
    for (int s = 0; s < kGroup / 4; ++s, p += 4 * kPanel) {
      const Bytes w0 = load_bytes(p), w1 = load_bytes(p + 64);
      if (M <= 2) prefetch(p + 4096), prefetch(p + 4160);
#pragma GCC unroll 12
      for (int m = 0; m < M; ++m) {
        const int8_t* four = a + m * w.k + 4 * s;
        acc[m][0] = dot_bytes(acc[m][0], w0, four);
        acc[m][1] = dot_bytes(acc[m][1], w1, four);
      }
    }
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const F32 scale = set1(scales[m * groups + g]);
      sum.v[m][0] = fma(to_float(acc[m][0]), scale, sum.v[m][0]);
      sum.v[m][1] = fma(to_float(acc[m][1]), scale, sum.v[m][1]);
    }
  }
}

template <int M, bool kHasMinimums>
static inline void int4_tile(const Matrix& w, const Inputs& x, int row, int panel, Tile<M>& sum) {
  const int groups = w.k / kGroup, per_scale = w.group / kGroup, scale_rows = w.k / w.group;
  const uint8_t* p = static_cast<const uint8_t*>(w.data) + static_cast<int64_t>(panel) * w.k * (kPanel / 2);
  const int8_t* a = x.codes + static_cast<int64_t>(row) * w.k;
  const float* scales = x.scales + static_cast<int64_t>(row) * groups;
  const float* sums = x.sums + static_cast<int64_t>(row) * groups;
  const int32_t* seeds = x.seeds + static_cast<int64_t>(row) * groups;
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) sum.v[m][0] = sum.v[m][1] = zero();
  for (int g = 0; g < groups; ++g, a += kGroup) {
    I32 acc[M][2];
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) acc[m][0] = acc[m][1] = set1_int(seeds[m * groups + g]);
    for (int t = 0; t < kGroup / 8; ++t, p += 4 * kPanel) {
      const Bytes v0 = load_bytes(p), v1 = load_bytes(p + 64);
      if (M <= 2) prefetch(p + 4096), prefetch(p + 4160);
      const Bytes low0 = low_nibbles(v0), low1 = low_nibbles(v1);
      const Bytes high0 = high_nibbles(v0), high1 = high_nibbles(v1);
#pragma GCC unroll 12
      for (int m = 0; m < M; ++m) {
        const int8_t* eight = a + m * w.k + 8 * t;
        acc[m][0] = dot_nibbles(acc[m][0], low0, eight);
        acc[m][1] = dot_nibbles(acc[m][1], low1, eight);
        acc[m][0] = dot_nibbles(acc[m][0], high0, eight + 4);
        acc[m][1] = dot_nibbles(acc[m][1], high1, eight + 4);
      }
    }
    const int64_t at = (static_cast<int64_t>(panel) * scale_rows + g / per_scale) * kPanel;
    const F32 s0 = load_half(w.scales + at), s1 = load_half(w.scales + at + 16);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const F32 scale = set1(scales[m * groups + g]);
      sum.v[m][0] = fma(mul(to_float(acc[m][0]), s0), scale, sum.v[m][0]);
      sum.v[m][1] = fma(mul(to_float(acc[m][1]), s1), scale, sum.v[m][1]);
    }
    if (kHasMinimums) {
      const F32 low0 = load_half(w.minimums + at), low1 = load_half(w.minimums + at + 16);
#pragma GCC unroll 12
      for (int m = 0; m < M; ++m) {
        const F32 inputs = set1(sums[m * groups + g]);
        sum.v[m][0] = fma(low0, inputs, sum.v[m][0]);
        sum.v[m][1] = fma(low1, inputs, sum.v[m][1]);
      }
    }
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
static inline void finish_tile(const Matrix& w, Tile<M>& sum, int row, int panel, const Output& out) {
  const int column = panel * kPanel;
  if (w.channel != nullptr) {
    const F32 c0 = load(w.channel + column), c1 = load(w.channel + column + 16);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) sum.v[m][0] = mul(sum.v[m][0], c0), sum.v[m][1] = mul(sum.v[m][1], c1);
  }
  if (w.bias != nullptr) {
    const F32 b0 = load(w.bias + column), b1 = load(w.bias + column + 16);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) sum.v[m][0] = add(sum.v[m][0], b0), sum.v[m][1] = add(sum.v[m][1], b1);
  }
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) {
    float* y = out.y + static_cast<int64_t>(row + m) * out.stride;
    if (out.finish == Finish::kSiluMul) {
      const int at = panel * (kPanel / 2);
      add_or_store(y + at, mul(silu(sum.v[m][0]), sum.v[m][1]), out.columns - at, false);
    } else {
      const bool adds = out.finish == Finish::kAdd;
      add_or_store(y + column, sum.v[m][0], out.columns - column, adds);
      add_or_store(y + column + 16, sum.v[m][1], out.columns - column - 16, adds);
    }
  }
}

template <int M>
static void tile(const Matrix& w, const Inputs& x, int row, int panel, const Output& out) {
  Tile<M> sum;
  switch (w.kind) {
    case WeightKind::kFloat32:
      float_tile<M>(w, x, row, panel, sum);
      break;
    case WeightKind::kBfloat16:
      bfloat_tile<M>(w, x, row, panel, sum);
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
