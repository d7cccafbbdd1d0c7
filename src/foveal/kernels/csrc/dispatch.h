// Which instruction set runs.
#pragma once

#include "operations.h"

namespace foveal {

// The table for "avx512", "avx2" or "portable"; null where this processor or build lacks it.
const Operations* find_operations(const char* name);

// In use: the best of this processor until `use_operations` says otherwise.
const Operations& operations();
void use_operations(const Operations&);

}  // namespace foveal
