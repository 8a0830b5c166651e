#include "engine/draft.h"

#include <algorithm>

namespace plumb {

size_t find_draft(std::span<const int> ids) {
  constexpr size_t kLongest = 4, kShortest = 2;
  size_t best = ids.size(), best_length = kShortest - 1;
  for (size_t end = ids.size() - std::min<size_t>(ids.size(), 1); end >= kShortest && best_length < kLongest;
       --end) {
    size_t length = 0;
    while (length < kLongest && length < end && ids[end - 1 - length] == ids[ids.size() - 1 - length])
      ++length;
    if (length > best_length) best = end, best_length = length;
  }
  return best;
}

int DraftLength::next() {
  if (pause_ == 0) return next_;
  --pause_;
  return 0;
}

void DraftLength::result(int drafted, int accepted) {
  if (accepted == drafted) {
    next_ = std::min(next_ + 2, most_);
  } else {
    next_ = std::max(1, std::min(accepted + 1, most_));
  }
  failures_ = accepted > 0 ? 0 : std::min(failures_ + 1, 8);
  if (failures_ > 2) pause_ = 1 << (failures_ - 2);
}

}  // namespace plumb
