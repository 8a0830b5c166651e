// Every bound on input from outside, in one place: what a file or request may ask for before it is refused.
// Each is tested at the limit and one beyond. The numbers are those of the design's hardening table.
#pragma once

#include <cstdint>

namespace plumb {

// GGUF container (gguf/).
inline constexpr int64_t kMaxGgufKeys = 65'536;             // metadata entries per file
inline constexpr int64_t kMaxGgufTensors = 65'536;          // tensors of all parts together
inline constexpr int64_t kMaxGgufParts = 1'024;             // files of a split model
inline constexpr int64_t kMaxGgufKeyBytes = 65'535;         // bytes of a key
inline constexpr int64_t kMaxGgufNameBytes = 255;           // bytes of a tensor name
inline constexpr int64_t kMaxGgufStringBytes = 16 << 20;    // bytes of one string value
inline constexpr int64_t kMaxGgufArrayElements = 16 << 20;  // elements of one array
inline constexpr int64_t kMinGgufAlignment = 8;             // bytes, a power of two
inline constexpr int64_t kMaxGgufAlignment = 1 << 20;       // bytes, a power of two
inline constexpr int64_t kDefaultGgufAlignment = 32;        // bytes, where general.alignment is absent
inline constexpr int kMaxGgufDimensions = 4;

// Hyper-parameters (models/, text/).
inline constexpr int64_t kMaxLayers = 1'024;
inline constexpr int64_t kMaxHeads = 1'024;
inline constexpr int64_t kMaxExperts = 1'024;
inline constexpr int64_t kMaxEmbedding = 262'144;
inline constexpr int64_t kMaxVocabulary = 4 << 20;  // tokens

// JSON (base/json.h).
inline constexpr int kMaxJsonDepth = 64;             // nested arrays and objects
inline constexpr int64_t kMaxJsonNodes = 1'000'000;  // values and keys
inline constexpr int kMaxJsonNumberBytes = 64;       // characters of one number
inline constexpr int64_t kMaxJsonBytes = 16 << 20;   // the whole text

// Conversations (chat/history.h).
inline constexpr int64_t kMaxHistoryMessages = 65'536;

// Traces, comparisons and hidden values over HTTP (server/instrument.h).
inline constexpr int64_t kMaxInstrumentTokens = 512;      // tokens of all texts of a request, with its steps
inline constexpr int kMaxInstrumentSteps = 64;            // tokens chosen after the prompt
inline constexpr int kMaxInstrumentPatterns = 256;        // names or patterns of values
inline constexpr int64_t kMaxInstrumentNodes = 950'000;   // JSON values and keys of an answer
inline constexpr int64_t kMaxInstrumentBytes = 15 << 20;  // of an answer; a request may carry it again
inline constexpr int64_t kMaxInstrumentWork = 1 << 30;    // bytes of values at hand while a reference runs
inline constexpr int kMaxInstrumentQueue = 8;             // requests that wait

// Journals (base/journal.h).
inline constexpr int64_t kMaxJournalRecordBytes = 16 << 20;  // bytes of one record
inline constexpr int64_t kMaxJournalBytes = 256 << 20;       // bytes of the file

}  // namespace plumb
