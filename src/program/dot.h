// Rows of a matrix times the rows of tokens, for the reference, in the widest registers that the processor
// has. The 16 partial sums of ops::dot are their lanes, products are rounded before they are added: every
// width gives its bits.
#pragma once

#include <cstdint>

#include "program/wrong.h"

namespace plumb {

/// y[r * tokens + t] = ops::dot(w + r * stride, x + t * n, n).  x: [tokens, n].
void dot_rows(const float* w, int rows, int64_t stride, const float* x, int tokens, int n, float* y);

/// How a wrong engine adds up: one product after the other, each sum rounded (never to blocks); or backwards.
struct InOrder {
  Rounded sums = Rounded::none;
  bool from_end = false;
};
void dot_rows_in_order(InOrder order, const float* w, int rows, int64_t stride, const float* x, int tokens,
                       int n, float* y);

}  // namespace plumb
