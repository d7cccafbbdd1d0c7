// Reusable memory for quantised rows.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

#include "matrix.h"
#include "operations.h"

namespace foveal {

// 64-byte aligned, grows only, contents lost when it grows.
template <typename T>
class Buffer {
 public:
  T* reserve(size_t count) {
    if (count > capacity_) {
      const size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
      memory_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
      if (!memory_) throw std::bad_alloc();
      capacity_ = count;
    }
    return memory_.get();
  }
  T* get() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T[], Free> memory_;
  size_t capacity_ = 0;
};

// Quantised rows with a fixed largest width.
class RowsBuffer {
 public:
  void reserve(int rows, int width) {
    const size_t padded = (width + kGroup - 1) / kGroup * kGroup, groups = padded / kGroup;
    codes_.reserve(rows * padded);
    scales_.reserve(rows * groups);
    seeds_.reserve(rows * groups);
    sums_.reserve(rows * groups);
  }

  // Quantise rows [first, last) of x [rows, stride] as `w` wants them; `x` is [.., columns].
  void fill(const Operations& ops, const Matrix& w, const float* x, int columns, int stride, int first, int last) {
    const int groups = w.k / kGroup;
    for (int row = first; row < last; ++row)
      ops.quantise(x + static_cast<int64_t>(row) * stride, columns, w.k, w.zero,
                   codes_.get() + static_cast<int64_t>(row) * w.k, scales_.get() + static_cast<int64_t>(row) * groups,
                   seeds_.get() + static_cast<int64_t>(row) * groups, sums_.get() + static_cast<int64_t>(row) * groups);
  }

  Inputs inputs() const { return {nullptr, 0, codes_.get(), scales_.get(), seeds_.get(), sums_.get()}; }

 private:
  Buffer<int8_t> codes_;
  Buffer<float> scales_, sums_;
  Buffer<int32_t> seeds_;
};

}  // namespace foveal
