// What sampling needs of a row x [n] of logits: its largest value, the sum of exp((x - largest) * factor) if `weigh`, and the
// ascending ids of all x >= largest - window. Returns how many ids there are; the first `room` are written.
//
// A row comes from memory once: each chunk is searched for its largest value and summed, relative to the largest so far,
// while it lies in the first-level cache and the next one is on its way.
static int scan_logits(const float* x, int n, float factor, float window, bool weigh, int room, int32_t* ids,
                       float* largest, float* total) {
  constexpr int kChunk = 1024, kMostChunks = 512;
  alignas(64) float peaks[kMostChunks];
  // A longer row has longer chunks.
  const int chunk = ((n + kMostChunks - 1) / kMostChunks + kChunk - 1) / kChunk * kChunk;
  float peak = x[0];
  F32 sums[4] = {zero(), zero(), zero(), zero()};
  int chunks = 0;
  for (int first = 0; first < n; first += chunk, ++chunks) {
    const int last = n - first < chunk ? n : first + chunk, whole = first + (last - first) / 64 * 64;
    F32 most[4] = {set1(x[first]), set1(x[first]), set1(x[first]), set1(x[first])};
    for (int i = first; i < whole; i += 64)
      for (int j = 0; j < 4; ++j) most[j] = max(most[j], load(x + i + 16 * j));
    float highest = reduce_max(max(max(most[0], most[1]), max(most[2], most[3])));
    for (int i = whole; i < last; ++i) highest = x[i] > highest ? x[i] : highest;
    peaks[chunks] = highest;
    if (highest > peak) {
      alignas(64) float change[16];
      store(change, exponential(set1((peak - highest) * factor)));
      for (int j = 0; j < 4; ++j) sums[j] = mul(sums[j], set1(change[0]));
      peak = highest;
    }
    if (!weigh || highest == -INFINITY) continue;  // a chunk of forbidden tokens: -inf - -inf would be no number
    const F32 shift = set1(peak), scale = set1(factor);
    for (int i = first; i < whole; i += 64)
      for (int j = 0; j < 4; ++j) {
        prefetch(x + i + 16 * j + chunk);
        sums[j] = add(sums[j], exponential(mul(sub(load(x + i + 16 * j), shift), scale)));
      }
    for (int i = whole; i < last; i += 16) {
      const int left = last - i < 16 ? last - i : 16;
      alignas(64) float lanes[16];
      store(lanes, exponential(mul(sub(load_n(x + i, left), shift), scale)));
      for (int j = left; j < 16; ++j) lanes[j] = 0.0f;
      sums[0] = add(sums[0], load(lanes));
    }
  }
  *largest = peak;
  if (weigh) *total = reduce_add(add(add(sums[0], sums[1]), add(sums[2], sums[3])));

  const float edge = peak - window;
  int count = 0;
  for (int c = 0; c < chunks; ++c) {
    if (peaks[c] < edge) continue;
    const int first = c * chunk, last = n - first < chunk ? n : first + chunk;
    for (int at = first; at < last; at += 64) {
      const int end = last - at < 64 ? last : at + 64;
      if (end == at + 64) {
        F32 most = load(x + at);
        for (int j = 1; j < 4; ++j) most = max(most, load(x + at + 16 * j));
        if (reduce_max(most) < edge) continue;
      }
      for (int i = at; i < end; ++i) {
        if (x[i] < edge) continue;
        if (count < room) ids[count] = i;
        ++count;
      }
    }
  }
  return count;
}
