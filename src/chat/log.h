// The journal of the running conversation: made with its first turn, one record a turn, and each on the disk
// before the next prompt. What the disk refused is tried again with the next record.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/journal.h"
#include "chat/history.h"

namespace plumb {

class ConversationLog {
 public:
  /// Journals lie in `folder`, one a conversation, named by its beginning; or all go to `file`. Both empty:
  /// none is written.
  ConversationLog(std::string folder, std::string file);

  /// Another conversation begins, with the messages that it may already have.
  void start(const History& history);
  /// Messages come; the last `drop` go before.
  void turn(std::span<const ChatMessage> messages, size_t drop = 0) {
    add(record_turn(messages, drop), true);
  }
  void system(std::string_view text) { add(record_system(text), false); }

  /// The path of the journal; empty before the first turn.
  std::string path() const { return journal_ ? journal_->path() : std::string(); }

  struct Found {
    std::string path;
    History history;
    int64_t torn_bytes = 0;
  };
  /// The last conversation that has a message and that no running program writes; nothing where there is
  /// none.
  std::optional<Found> last() const;

  /// Goes on in the journal of that conversation.
  void resume(const Found& found);

 private:
  /// Throws what Journal throws; the record is kept for the next call.
  void add(std::string record, bool write_now);
  void open();

  std::string folder_, file_;
  std::optional<Journal> journal_;
  std::vector<std::string> pending_;  // not on the disk yet
};

}  // namespace plumb
