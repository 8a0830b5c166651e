// Prompt-lookup drafts: what followed the last time the text ended as it does now. A draft costs nothing but
// its check, in one pass with the next token, and the check has the bits of plain decoding, so the text stays
// the same.
#pragma once

#include <span>

namespace plumb {

/// Where a draft for what follows `ids` begins: after the latest earlier place where the longest of their
/// endings of 4, 3 or 2 ids stands. ids.size() where there is none.
size_t find_draft(std::span<const int> ids);

/// How many ids to draft next, from how the drafts so far fared.
class DraftLength {
 public:
  explicit DraftLength(int most) : most_(most), next_(most < 4 ? most : 4) {}

  /// 0 while drafts have lately been wrong from the start: then longer and longer pauses are made.
  int next();
  void result(int drafted, int accepted);

 private:
  int most_, next_;
  int failures_ = 0, pause_ = 0;
};

}  // namespace plumb
