// The catalogue of known bugs of engines: each an edit of a Variant, with its story, where it was seen, and
// where it first shows. docs/add-a-fault.md says how to add one.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trace/variant.h"

namespace plumb::trace {

/// Makes the Variant faulty; returns why the fault cannot be there, or nothing. `parameter` is that of the
/// fault, if it has one. Where it returns a reason, the Variant may be half changed.
using Edit = std::function<std::string(Variant&, double parameter)>;

/// Whether rms, minimum and maximum over all tokens separate the fault from health: where it first shows;
/// only further down, or by head or token; not at all.
enum class Sep { yes, late, no };

/// The number in a parametric fault. Ranges are those that a search tries.
struct Parameter {
  const char* name = nullptr;  // null: the fault has none
  double usual = 0;            // what plumb run --fault ID takes
  double low = 0, high = 0;
  std::vector<double> grid = {};  // values seen in the wild
};

struct Fault {
  std::string id;          // "F1": never reused; the letter is the family
  std::string name;        // "rope-style"
  std::string story;       // what the engine does, one sentence
  std::string references;  // repo#number, separated by ", "
  /// Short names of values without blk.L., separated by spaces: one of them is the first that is wrong. Empty
  /// for faults of text and sampling, and for controls.
  std::string first;
  Edit edit;
  Sep sep = Sep::yes;
  int step = 0;                 // call in which it first shows: 0 the prompt, 1 the first step, ...
  std::string equivalent = {};  // ids that most evidence cannot tell from it
  Edit poison = {};  // changes weights and metadata only, so that a right engine computes what the fault does
  Edit antidote = {};  // the same, so that the faulty engine computes what is right
  Parameter parameter = {};
  bool control = false;    // no fault: must never be called one
  std::string needs = {};  // what a model or prompt must have for it to show, beyond what edit() finds
};

/// In the order of families.
const std::vector<Fault>& catalogue();

/// By id, or by "id-name"; null if there is none.
const Fault* find_fault(std::string_view id);

/// The same for "F1", "F1-rope-style" or "D1=1e-6" lists separated by commas; throws Error "usage.fault" with
/// the nearest ids.
struct ChosenFault {
  const Fault* fault;
  double parameter;
};
std::vector<ChosenFault> choose_faults(const std::string& list);

const char* family_name(char letter);
/// "F1-rope-style"
std::string full_name(const Fault& fault);

/// Empty: the fault can be there. Else why not.
std::string why_not(const Fault& fault, const Model& model);
bool applies(const Fault& fault, const Model& model);

/// The model with the faults, in order. Throws Error "fault.applies" naming one that cannot be there.
Variant vary(const Model& model, std::span<const ChosenFault> faults);
Variant vary(const Model& model, std::span<const Fault* const> faults);
/// The same; none where the model cannot have them together.
std::optional<Variant> try_vary(const Model& model, std::span<const ChosenFault> faults);

// The families.
void add_layout_faults(std::vector<Fault>& all);     // A
void add_decoding_faults(std::vector<Fault>& all);   // B
void add_norm_faults(std::vector<Fault>& all);       // C, D
void add_head_faults(std::vector<Fault>& all);       // E
void add_rope_faults(std::vector<Fault>& all);       // F
void add_attention_faults(std::vector<Fault>& all);  // G
void add_cache_faults(std::vector<Fault>& all);      // H
void add_ffn_faults(std::vector<Fault>& all);        // I
void add_output_faults(std::vector<Fault>& all);     // J
void add_text_faults(std::vector<Fault>& all);       // K, L
void add_precision_faults(std::vector<Fault>& all);  // M, N

}  // namespace plumb::trace
