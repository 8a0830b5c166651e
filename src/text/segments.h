// Text to symbols by units and segments: the loop shared by SentencePiece and by gemma4's BPE.
#pragma once

#include <string_view>
#include <vector>

#include "text/merge.h"
#include "text/units.h"

namespace plumb {

/// Calls symbol(s) for each symbol of the merged text and stranger(unit) for each unit that the index does
/// not hold.
template <class Pairs, class OnSymbol, class OnStranger>
void encode_segments(UnitReader reader, const UnitIndex& index, const int* units, Pairs& pairs,
                     const OnSymbol& on_symbol, const OnStranger& on_stranger) {
  std::vector<int> segment;
  Unit unit, last;
  auto flush = [&] {
    if (segment.size() > 1) merge_all(segment, units, pairs);
    for (int s : segment) on_symbol(s);
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
