// Text to symbols by units and segments: the loop shared by SentencePiece and by gemma4's BPE.
#pragma once

#include <string_view>
#include <vector>

#include "text/merge.h"
#include "text/units.h"

namespace plumb {

/// Gives the symbols of the merged text to `out` (see merge_word) and each unit that the index does not hold
/// to stranger(unit).
template <class Pairs, class Out, class OnStranger>
void encode_segments(UnitReader reader, const UnitIndex& index, const int* units, Pairs& pairs, Out& out,
                     const OnStranger& on_stranger) {
  std::vector<int> segment, scratch;
  Unit unit, last;
  auto flush = [&] {
    merge_word(segment.size(), [&](size_t i) { return segment[i]; }, units, pairs, scratch, out);
    segment.clear();
  };
  int symbol = -1;
  bool joins_itself = false;  // may_join(last, last), for runs of one unit
  while (reader.next(unit)) {
    const bool again = unit.key() == last.key();
    if (!again) {
      symbol = index.find(unit);
      joins_itself = symbol >= 0 && index.may_join(unit, unit);
    }
    if (!segment.empty() && (symbol < 0 || !(again ? joins_itself : index.may_join(last, unit)))) flush();
    if (symbol < 0) {
      on_stranger(unit);
    } else {
      segment.push_back(symbol);
    }
    last = unit;
  }
  flush();
}

}  // namespace plumb
