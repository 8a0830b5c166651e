// `plumb inspect FILE`: what a GGUF file holds, and with --values the decoded weights of a row.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>

#include "app/command.h"
#include "app/flags.h"
#include "app/inspect_report.h"
#include "app/nearest.h"
#include "app/terminal_text.h"
#include "base/error.h"

namespace plumb {
namespace {

struct InspectOptions {
  std::string file;
  std::string values;
  bool json = false;
  bool full = false;
};

std::string nearest_names(const Gguf& g, std::string_view wanted) {
  std::vector<std::string> names;
  for (const GgufTensor& t : g.tensors()) names.push_back(printable(t.name, 255));
  if (names.empty()) return "the file holds no tensors";
  return fmt::format("did you mean {}", fmt::join(nearest(wanted, std::move(names), 3), ", "));
}

// A row of a tensor, as TENSOR[:ROW[:COUNT]] asks for it.
struct Selection {
  const GgufTensor* tensor = nullptr;
  int64_t row = 0;
  int64_t count = 0;
};

int64_t bounded_number(const std::string& text, std::string_view digits, const char* what, int64_t min,
                       int64_t max) {
  int64_t n = 0;
  const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), n);
  if (problem != std::errc() || end != digits.data() + digits.size() || n < min || n > max) {
    throw Error({.code = "usage.values",
                 .expected = fmt::format("a {} from {} to {}", what, min, max),
                 .found = '"' + printable(digits) + '"',
                 .where = {.key = "--values " + text}});
  }
  return n;
}

Selection select(const Gguf& g, const std::string& text) {
  Selection s;
  std::vector<std::string_view> numbers;  // row, count
  std::string_view name = text;
  while (!(s.tensor = g.find_tensor(name)) && numbers.size() < 2) {  // names may hold colons of their own
    const size_t colon = name.rfind(':');
    if (colon == std::string_view::npos) break;
    numbers.insert(numbers.begin(), name.substr(colon + 1));
    name = name.substr(0, colon);
  }
  if (!s.tensor) {
    const std::string_view asked = std::string_view(text).substr(0, text.find(':'));
    throw Error({.code = "usage.tensor",
                 .expected = "a tensor of the file",
                 .found = "no such tensor",
                 .where = {.file = g.path(), .tensor = std::string(asked)},
                 .remedy = nearest_names(g, asked)});
  }
  s.count = s.tensor->columns();
  if (numbers.size() > 0) s.row = bounded_number(text, numbers[0], "row", 0, s.tensor->rows() - 1);
  if (numbers.size() > 1) s.count = bounded_number(text, numbers[1], "count", 1, s.tensor->columns());
  return s;
}

// Decodes the selection piece by piece: a row may be longer than we would like to hold.
template <class Use>
void for_each_piece(const Selection& s, Use&& use) {
  const GgufTensor& t = *s.tensor;
  const FormatInfo& f = info(t.format);
  const uint8_t* row = t.data + s.row * row_bytes(t.format, t.columns());
  constexpr int64_t kPiece = 4096;  // a multiple of every block
  std::vector<float> weights(kPiece);
  for (int64_t i = 0; i < s.count; i += kPiece) {
    const int64_t wanted = std::min(kPiece, s.count - i);
    const int64_t whole =
        (wanted + f.block - 1) / f.block * f.block;  // the row ends with a block: never beyond it
    decode(t.format, row + row_bytes(t.format, i), whole, weights.data());
    use(i, std::span<const float>(weights).first(size_t(wanted)));
  }
}

void print_values(const Selection& s) {
  constexpr int64_t kPerLine = 4;
  print_out(fmt::format("{}  {}  {}  row {} of {}, {} of {} weights\n", printable(s.tensor->name, 255),
                        info(s.tensor->format).name, shape_text(*s.tensor), s.row, s.tensor->rows(), s.count,
                        s.tensor->columns()));
  for_each_piece(s, [&](int64_t first, std::span<const float> weights) {
    std::string out;
    for (int64_t i = 0; i < int64_t(weights.size()); ++i) {
      if (i % kPerLine == 0) out += fmt::format("{:>8}", first + i);
      out += fmt::format("  {:>16.9g}", weights[size_t(i)]);
      if (i % kPerLine == kPerLine - 1 || i + 1 == int64_t(weights.size())) out += '\n';
    }
    print_out(out);
  });
}

Json values_json(const Selection& s) {
  Json::Array shape(s.tensor->ne, s.tensor->ne + s.tensor->n_dims), values;
  for_each_piece(s, [&](int64_t, std::span<const float> weights) {
    for (float w : weights) values.push_back(std::isfinite(w) ? Json(w) : Json(fmt::format("{}", w)));
  });
  Json j;
  j.set("tensor", s.tensor->name);
  j.set("type", info(s.tensor->format).name);
  j.set("shape", std::move(shape));
  j.set("row", s.row);
  j.set("count", s.count);
  j.set("values", std::move(values));
  return j;
}

void inspect(const InspectOptions& o) {
  const Gguf g = Gguf::open(o.file);
  constexpr JsonStyle style{.indent = 2, .ascii = true};
  if (!o.values.empty()) {
    const Selection s = select(g, o.values);
    if (o.json) {
      print_out(dump(values_json(s), style) + '\n');
    } else {
      print_values(s);
    }
  } else {
    print_out(o.json ? dump(inspect_json(g, o.full), style) + '\n' : inspect_text(g, o.full));
  }
}

}  // namespace

void add_inspect(CLI::App& root) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* command = root.add_subcommand("inspect", "Show what a GGUF file holds");
  command->add_option("file", options->file, "GGUF file; of a split model the first part")->required();
  command
      ->add_option("--values", options->values,
                   "Decoded weights of a row; row 0 and all of it unless said otherwise")
      ->type_name("TENSOR[:ROW[:COUNT]]");
  command->add_flag("--full", options->full, "Every element of arrays, every character of strings");
  command->add_flag("--json", options->json, "The report as JSON");
  command->callback([options] { inspect(*options); });
}

}  // namespace plumb
