// 2^x for x <= 0, relative error below 2e-7, exact at 0: a polynomial of degree 5 fitted to the relative error over half a
// step both ways. Cheaper than exponential(), whose range reduction takes two steps.
static inline F32 power_of_two_below(F32 x) {
  x = max(set1(-126.0f), x);
  const F32 whole = nearest(x), r = sub(x, whole);
  F32 p = set1(1.32647273e-3f);
  p = fma(p, r, set1(9.67151299e-3f));
  p = fma(p, r, set1(5.55073358e-2f));
  p = fma(p, r, set1(2.40222424e-1f));
  p = fma(p, r, set1(6.93147004e-1f));
  p = fma(p, r, set1(1.0f));
  return mul(p, power_of_two(whole));
}

// What sampling needs of a row x [n] of logits: its largest value, the sum of exp((x - largest) * factor) if `weigh`, and the
// ascending ids of all x >= largest - window. Returns how many ids there are; the first `room` are written. NaN is never
// the largest and never listed, but makes the sum NaN.
//
// A row comes from memory once: each chunk is searched for its largest value and summed, relative to the largest so far,
// while it lies in the first-level cache and the next one is on its way.
static int scan_logits(const float* x, int n, float factor, float window, bool weigh, int room, int32_t* ids,
                       float* largest, float* total) {
  constexpr int kChunk = 1024, kMostChunks = 512;
  alignas(64) float peaks[kMostChunks];
  // A longer row has longer chunks.
  const int chunk = ((n + kMostChunks - 1) / kMostChunks + kChunk - 1) / kChunk * kChunk;
  const float binary = factor * 1.44269504f;
  float peak = x[0];
  F32 sums[4] = {zero(), zero(), zero(), zero()};
  int chunks = 0;
  for (int first = 0; first < n; first += chunk, ++chunks) {
    const int last = n - first < chunk ? n : first + chunk, whole = first + (last - first) / 64 * 64;
    F32 most[4] = {set1(x[first]), set1(x[first]), set1(x[first]), set1(x[first])};
    for (int i = first; i < whole; i += 64)
      for (int j = 0; j < 4; ++j) most[j] = max(load(x + i + 16 * j), most[j]);  // the second where one is NaN
    float highest = reduce_max(max(max(most[0], most[1]), max(most[2], most[3])));
    for (int i = whole; i < last; ++i) highest = x[i] > highest ? x[i] : highest;
    peaks[chunks] = highest;
    if (highest > peak) {
      alignas(64) float change[16];
      store(change, power_of_two_below(set1((peak - highest) * binary)));
      for (int j = 0; j < 4; ++j) sums[j] = mul(sums[j], set1(change[0]));
      peak = highest;
    }
    if (!weigh || highest == -INFINITY) continue;  // a chunk of forbidden tokens: -inf - -inf would be no number
    const F32 shift = set1(peak), scale = set1(binary);
    for (int i = first; i < whole; i += 64)
      for (int j = 0; j < 4; ++j) {
        prefetch(x + i + 16 * j + chunk);
        sums[j] = add(sums[j], power_of_two_below(mul(sub(load(x + i + 16 * j), shift), scale)));
      }
    for (int i = whole; i < last; i += 16) {
      const int left = last - i < 16 ? last - i : 16;
      alignas(64) float lanes[16];
      store(lanes, power_of_two_below(mul(sub(load_n(x + i, left), shift), scale)));
      for (int j = left; j < 16; ++j) lanes[j] = 0.0f;
      sums[0] = add(sums[0], load(lanes));
    }
  }
  *largest = peak;
  if (weigh) *total = reduce_add(add(add(sums[0], sums[1]), add(sums[2], sums[3])));

  const float edge = peak - window;
  int count = 0;
  const auto note = [&](int i) {
    if (count < room) ids[count] = i;
    ++count;
  };
  for (int c = 0; c < chunks; ++c) {
    if (peaks[c] < edge) continue;
    const int first = c * chunk, last = n - first < chunk ? n : first + chunk;
    int at = first;
    for (; at + 64 <= last; at += 64) {
      uint64_t found = 0;
      for (int j = 0; j < 4; ++j)
        found |= static_cast<uint64_t>(at_least(load(x + at + 16 * j), set1(edge))) << (16 * j);
      for (; found != 0; found &= found - 1) note(at + __builtin_ctzll(found));
    }
    for (; at < last; ++at)
      if (x[at] >= edge) note(at);
  }
  return count;
}

static float sum_below(const float* x, int n, float temperature, float edge) {
  const F32 divisor = set1(temperature), limit = set1(edge), base_two = set1(1.44269504f);
  F32 sums = zero();
  float rest = 0.0f;
  for (int i = 0; i < n; i += 16) {
    const int left = n - i < 16 ? n - i : 16;
    const F32 values = div(left < 16 ? load_n(x + i, left) : load(x + i), divisor);
    const F32 weights = power_of_two_below(mul(sub(values, limit), base_two));
    const uint32_t above = at_least(values, limit);
    if (above == 0 && left == 16) {
      sums = add(sums, weights);
      continue;
    }
    alignas(64) float lanes[16];
    store(lanes, weights);
    for (int j = 0; j < left; ++j)
      if (!(above >> j & 1)) rest += lanes[j];
  }
  return reduce_add(sums) + rest;
}
