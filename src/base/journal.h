// An append-only file of checksummed records that survives a kill, a crash and a full disk: what append()
// returned from is there when the file is opened again. Used for running conversations (design, hardening,
// section 4).
//
// The file is the 8 bytes "plumbjrn" and then records: length (u32), CRC-32C of length and payload (u32),
// payload, all little-endian. A record that is cut off or whose sum is wrong ends the file: it and what
// follows go to
// "<file>.torn", so that nothing is thrown away, and the next record takes their place.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace plumb {

inline constexpr std::string_view kJournalMagic = "plumbjrn";

struct JournalContents {
  std::vector<std::string> records;
  int64_t good_bytes = 0;  // of the file, up to the end of the last whole record
  int64_t torn_bytes = 0;  // behind them
};

/// Pure: what such a file holds. Throws Error "journal.format" for anything that is no journal, cut or whole.
JournalContents parse_journal(std::string_view bytes, const std::string& name);

/// The records of a file, which is only read. Throws as parse_journal and read_file.
JournalContents read_journal(const std::string& path);

class Journal {
 public:
  /// Opens or makes the file, for this process alone; records() are those found. Throws Error
  /// "journal.format", or "journal.open" with the system's reason; "journal.used" when another process has it
  /// open.
  explicit Journal(const std::string& path);
  Journal(Journal&& other) noexcept;
  Journal& operator=(Journal&&) = delete;
  ~Journal();

  /// On the disk when it returns. When it throws (Error "journal.write", "journal.too_large") the file is as
  /// it was before the call.
  void append(std::string_view payload);

  const std::string& path() const { return path_; }
  const std::vector<std::string>& records() const { return records_; }
  int64_t torn_bytes() const { return torn_; }  // that were moved to "<path>.torn"

 private:
  void load();
  void keep_torn(std::string_view bytes) const;
  void write_at_end(std::string_view bytes);

  std::string path_;
  std::vector<std::string> records_;
  int fd_ = -1;
  int64_t end_ = 0, torn_ = 0;
};

/// CRC-32C (Castagnoli), as in iSCSI: RFC 3720, appendix B.4.
uint32_t crc32c(std::string_view bytes, uint32_t crc = 0);

}  // namespace plumb
