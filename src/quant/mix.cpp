#include "quant/mix.h"

#include <algorithm>
#include <charconv>
#include <numeric>

namespace plumb {
namespace {

constexpr FileType kFileTypes[] = {
    {"Q4_0", 2, Format::Q4_0},      {"Q4_1", 3, Format::Q4_1},    {"Q5_0", 8, Format::Q5_0},
    {"Q5_1", 9, Format::Q5_1},      {"Q8_0", 7, Format::Q8_0},    {"Q2_K", 10, Format::Q2_K},
    {"Q3_K_S", 11, Format::Q3_K},   {"Q3_K_M", 12, Format::Q3_K}, {"Q3_K_L", 13, Format::Q3_K},
    {"Q4_K_S", 14, Format::Q4_K},   {"Q4_K_M", 15, Format::Q4_K}, {"Q5_K_S", 16, Format::Q5_K},
    {"Q5_K_M", 17, Format::Q5_K},   {"Q6_K", 18, Format::Q6_K},   {"IQ4_NL", 25, Format::IQ4_NL},
    {"IQ4_XS", 30, Format::IQ4_XS}, {"MXFP4", 38, Format::MXFP4}, {"F16", 1, Format::F16},
    {"BF16", 32, Format::BF16},     {"F32", 0, Format::F32},
};

bool holds(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

int layer_of(std::string_view name) {
  int layer = -1;
  if (name.starts_with("blk.")) std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return layer;
}

bool may_change(const MixTensor& t, const MixOptions& o) {
  return t.n_dims >= 2 && t.name.ends_with("weight") && !holds(t.name, "_norm.weight") &&
         !(o.leave_output && t.name == "output.weight") && !holds(t.name, "ffn_gate_inp.weight");
}

// For rows that its blocks do not divide, what stands in for a format.
Format smaller_blocks(Format f) {
  switch (f) {
    case Format::IQ4_XS:
      return Format::IQ4_NL;
    case Format::Q2_K:
    case Format::Q3_K:
      return Format::Q4_0;
    case Format::Q4_K:
      return Format::Q5_0;
    case Format::Q5_K:
      return Format::Q5_1;
    case Format::Q6_K:
      return Format::Q8_0;
    default:
      return f;
  }
}

MixChoice fitting(Format f, int64_t columns) {
  if (columns % info(f).block == 0) return {f};
  f = smaller_blocks(f);
  return {columns % info(f).block == 0 ? f : Format::F16, true};
}

class Mixer {
 public:
  Mixer(const MixOptions& o, int n_wv, bool tied) : o_(o), n_wv_(n_wv), tied_(tied) {}

  MixChoice choose(const MixTensor& t) {
    const bool embedding = t.name == "token_embd.weight", output = t.name == "output.weight";
    if (!may_change(t, o_)) return {t.format};
    if (embedding && o_.embedding) return fitting(*o_.embedding, t.columns);
    if (output && o_.output) return fitting(*o_.output, t.columns);
    const Format most = o_.type->format;
    if (!is_quantised(most)) return {most};
    if (const std::optional<Format> f = o_.named(t.name)) return fitting(*f, t.columns);
    if (o_.pure) return fitting(most, t.columns);
    if (output || (tied_ && embedding)) return fitting(output_format(t), t.columns);
    return fitting(inner_format(t, most), t.columns);
  }

 private:
  bool is(std::string_view name) const { return name == o_.type->name; }

  static bool more_bits(int i, int n) { return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2; }

  Format output_format(const MixTensor& t) const {
    if (o_.output) return *o_.output;
    const Format most = o_.type->format;
    const bool eight = most == Format::MXFP4 || most == Format::Q8_0 || t.columns % info(most).block != 0;
    return eight ? Format::Q8_0 : Format::Q6_K;
  }

  Format inner_format(const MixTensor& t, Format f) {
    if (holds(t.name, "attn_v.weight")) return value_format(f, wv_++);
    if (holds(t.name, "ffn_down")) return down_format(f, down_++);
    if (holds(t.name, "attn_output.weight")) {
      if (is("Q2_K")) return Format::Q3_K;
      if (is("Q3_K_M")) return Format::Q4_K;
      if (is("Q3_K_L")) return Format::Q5_K;
    }
    return f;
  }

  Format value_format(Format f, int i) const {
    const bool shared = o_.n_gqa >= 4;
    if (is("Q2_K")) return shared ? Format::Q4_K : Format::Q3_K;
    if (is("Q3_K_M")) return i < 2 ? Format::Q5_K : Format::Q4_K;
    if (is("Q3_K_L")) return Format::Q5_K;
    if ((is("IQ4_NL") || is("IQ4_XS")) && shared) return Format::Q5_K;
    if ((is("Q4_K_M") || is("Q5_K_M")) && more_bits(i, n_wv_)) return Format::Q6_K;
    if (is("Q4_K_S") && i < 4) return Format::Q5_K;
    return f;
  }

  Format down_format(Format f, int i) const {
    const int n = o_.n_layer;
    if (is("Q2_K")) return Format::Q3_K;
    if (is("Q3_K_M")) return i < n / 16 ? Format::Q5_K : Format::Q4_K;
    if (is("Q3_K_L")) return Format::Q5_K;
    if ((is("Q4_K_M") || is("Q5_K_M")) && more_bits(i, n)) return Format::Q6_K;
    if ((is("IQ4_NL") || is("IQ4_XS") || is("Q4_K_S")) && i < n / 8) return Format::Q5_K;
    return f;
  }

  const MixOptions& o_;
  int n_wv_, wv_ = 0, down_ = 0;
  bool tied_;
};

}  // namespace

std::span<const FileType> file_types() { return kFileTypes; }

const FileType* find_file_type(std::string_view name) {
  std::string upper(name);
  for (char& c : upper) c = c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c;
  if (upper == "Q3_K" || upper == "Q4_K" || upper == "Q5_K") upper += "_M";
  const auto found = std::find_if(std::begin(kFileTypes), std::end(kFileTypes),
                                  [&](const FileType& t) { return upper == t.name; });
  return found == std::end(kFileTypes) ? nullptr : found;
}

bool is_quantised(Format f) {
  return f != Format::F32 && f != Format::F16 && f != Format::BF16 && f != Format::F64;
}

std::vector<MixChoice> choose_formats(std::span<const MixTensor> tensors, const MixOptions& options) {
  // The rules count layers: tensors are met in the order of their layers and names, wherever they stand.
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const int la = layer_of(tensors[a].name), lb = layer_of(tensors[b].name);
    return la != lb ? la < lb : tensors[a].name < tensors[b].name;
  });
  int n_wv = 0;
  bool tied = true;
  for (const MixTensor& t : tensors) {
    if (holds(t.name, "attn_v.weight")) ++n_wv;
    if (t.name == "output.weight") tied = false;
  }
  Mixer mixer(options, n_wv, tied);
  std::vector<MixChoice> choices(tensors.size());
  for (size_t i : order) choices[i] = mixer.choose(tensors[i]);
  return choices;
}

}  // namespace plumb
