// What sampling needs of a row x [n] of logits: its largest value, the sum of exp((x - largest) * factor) if `weigh`, and the
// ascending ids of all x >= largest - window. Returns how many ids there are; the first `room` are written.
static int scan_logits(const float* x, int n, float factor, float window, bool weigh, int room, int32_t* ids,
                       float* largest, float* total) {
  constexpr int kBlock = 64;
  const int whole = n / kBlock * kBlock;
  F32 most[4] = {set1(x[0]), set1(x[0]), set1(x[0]), set1(x[0])};
  for (int i = 0; i < whole; i += kBlock)
    for (int j = 0; j < 4; ++j) most[j] = max(most[j], load(x + i + 16 * j));
  float peak = reduce_max(max(max(most[0], most[1]), max(most[2], most[3])));
  for (int i = whole; i < n; ++i) peak = x[i] > peak ? x[i] : peak;
  *largest = peak;

  const float edge = peak - window;
  const F32 shift = set1(peak), scale = set1(factor);
  F32 sums[4] = {zero(), zero(), zero(), zero()};
  int count = 0;
  const auto collect = [&](int first, int last) FOVEAL_INLINE {
    for (int i = first; i < last; ++i) {
      if (x[i] < edge) continue;
      if (count < room) ids[count] = i;
      ++count;
    }
  };
  for (int i = 0; i < whole; i += kBlock) {
    F32 v[4];
    for (int j = 0; j < 4; ++j) v[j] = load(x + i + 16 * j);
    if (reduce_max(max(max(v[0], v[1]), max(v[2], v[3]))) >= edge) collect(i, i + kBlock);
    if (weigh)
      for (int j = 0; j < 4; ++j) sums[j] = add(sums[j], exponential(mul(sub(v[j], shift), scale)));
  }
  collect(whole, n);
  if (weigh) {
    for (int i = whole; i < n; i += 16) {
      const int left = n - i < 16 ? n - i : 16;
      alignas(64) float lanes[16];
      store(lanes, exponential(mul(sub(load_n(x + i, left), shift), scale)));
      for (int j = left; j < 16; ++j) lanes[j] = 0.0f;
      sums[0] = add(sums[0], load(lanes));
    }
    *total = reduce_add(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
  }
  return count;
}
