// A model as a faulty engine might run it: all that a fault, an adapter or a study may change, and its run
// through the reference, as far as the values asked for need.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/model.h"
#include "engine/sampler.h"
#include "gguf/writer.h"
#include "program/reference.h"

namespace plumb::trace {

/// A metadata key as a changed file has it; without `set`: absent.
struct MetadataEdit {
  std::string key;
  std::function<void(GgufWriter&)> set;
};

/// What an engine does to a prompt besides what the file's metadata asks for.
struct TextOptions {
  int extra_bos = 0;              // BOS ids before the prompt
  bool flips_special = false;     // control tokens read as text, or text as control tokens
  bool newline_is_space = false;  // before the text is cut into tokens
  bool drops_control = false;     // control tokens are left out: no chat template
  bool drops_turn = false;        // the turn that follows the last end of one is left out
  bool drops_last = false;        // the last id is left out
  bool appends_eos = false;
};

struct Variant {
  const Gguf* file = nullptr;
  Program program;
  Arithmetic arithmetic;
  TextOptions text;
  std::function<void(SamplerOptions&)> sampler;
  std::vector<MetadataEdit> metadata;  // hyperparameters that the Program was changed for; the tokenizer's

  /// Bytes of a row of a weight in its own format, where they can say what the changed reading reads; by
  /// name.
  using RowBytes = std::function<void(const WeightRef&, int64_t row, uint8_t* out)>;
  std::map<std::string, RowBytes> row_bytes;
};

/// The model as it is.
Variant right_variant(const Model& model);

/// The file's metadata with the Variant's changes, and no tensors: for a tokenizer.
std::vector<uint8_t> changed_metadata(const Variant& variant);

/// The ids that the Variant's engine makes of a text.
std::vector<int> encode_text(const Variant& variant, const std::string& text, EncodeOptions options);

struct VariantRun {
  std::vector<int> tokens;               // all that are fed
  std::vector<int> calls = {};           // how many of them in each call; empty: all in one
  std::vector<std::string> values = {};  // asked for; also blk.L.attn.kq, .probs and .kqv
  bool f64 = true;
  Arithmetic profile = {};  // where the Variant does not say otherwise
  std::map<std::string, std::vector<double>> given =
      {};               // rows of all tokens, taken instead of computed where they fit
  bool replay = false;  // values that are asked for and given are computed from given ones, then replaced
  bool last_logits_only = false;  // rows of the logits before a call's last are zero
  DecodedWeights* decoded = nullptr;
  std::atomic<bool>* cancel = nullptr;  // asked between nodes; then Error "run.cancelled"
};

/// Rows of a value, valid during the call that shows them.
struct VariantRows {
  std::string_view value;
  int call;       // index in VariantRun::calls
  int64_t first;  // position of the first row
  int rows, heads;
  int64_t dim;                   // of a head; keys of attn.kq and attn.probs
  std::span<const double> data;  // [rows, heads, dim]
};

/// Computes what the values asked for need and nothing else; shows them in the order of the Program, call by
/// call. A value that the Variant lacks is not shown.
void run_variant(const Variant& variant, Pool& pool, const VariantRun& run,
                 const std::function<void(const VariantRows&)>& see);

}  // namespace plumb::trace
