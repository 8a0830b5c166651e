#include "plan/arena.h"

#include <algorithm>
#include <numeric>

namespace plumb {

int64_t place(std::vector<Lifetime>& buffers) {
  std::vector<size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return buffers[a].first != buffers[b].first ? buffers[a].first < buffers[b].first : a < b;
  });
  std::vector<const Lifetime*> placed;  // live at the current step, by offset
  int64_t end = 0;
  for (size_t i : order) {
    Lifetime& b = buffers[i];
    std::erase_if(placed, [&](const Lifetime* p) { return p->last < b.first; });
    const int64_t bytes = (b.bytes + 63) / 64 * 64;
    int64_t at = 0;
    auto next = placed.begin();
    for (; next != placed.end() && (*next)->offset < at + bytes; ++next) {
      at = std::max(at, (*next)->offset + ((*next)->bytes + 63) / 64 * 64);
    }
    b.offset = at;
    placed.insert(next, &b);
    end = std::max(end, at + bytes);
  }
  return end;
}

}  // namespace plumb
