#include "trace/poison.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "program/decoded.h"
#include "quant/encode.h"

namespace plumb::trace {
namespace {

// A row as the Variant reads it, in bytes of the format that it is written in.
class Rows {
 public:
  Rows(const Variant& v, const WeightRef& w, const CureOptions& options) : w_(w) {
    const auto bytes = v.row_bytes.find(w.name);
    if (bytes != v.row_bytes.end()) bytes_ = bytes->second;
    const bool same = !w.read || bytes_;
    const Format wanted = options.format.value_or(Format::F32);
    const bool fits = w.rows > 1 && w.columns % info(wanted).block == 0;
    format_ = same ? w.format : fits ? wanted : Format::F32;
  }

  Format format() const { return format_; }

  void send(const GgufWriter::Sink& sink) const {
    std::vector<uint8_t> out(size_t(row_bytes(format_, w_.columns)));
    std::vector<float> row(size_t(w_.columns));
    for (int64_t r = 0; r < w_.rows; ++r) {
      if (!w_.read) {
        sink({w_.data + r * int64_t(out.size()), out.size()});
        continue;
      }
      if (bytes_) {
        bytes_(w_, r, out.data());
      } else {
        read_row(w_, r, row.data());
        encode_row(row, out);
      }
      sink(out);
    }
  }

 private:
  void encode_row(const std::vector<float>& row, std::vector<uint8_t>& out) const {
    const bool finite = std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); });
    if (!finite && format_ != Format::F32) {
      throw Error({.code = "quantize.nonfinite",
                   .expected = "finite weights, or --type F32",
                   .found = "others",
                   .where = {.tensor = w_.name}});
    }
    if (format_ == Format::F32) {
      const auto* bytes = reinterpret_cast<const uint8_t*>(row.data());
      out.assign(bytes, bytes + row.size() * sizeof(float));
    } else {
      encode(format_, row.data(), w_.columns, out.data());
    }
  }

  const WeightRef& w_;
  Variant::RowBytes bytes_;
  Format format_;
};

void write(const Variant& v, const std::string& path, const CureOptions& options) {
  GgufWriter w(3);
  for (const GgufValue& value : v.file->values()) {
    const bool changed = std::any_of(v.metadata.begin(), v.metadata.end(),
                                     [&](const MetadataEdit& e) { return e.key == value.key; });
    if (!changed && !value.key.starts_with("split.")) w.set(value);
  }
  for (const MetadataEdit& e : v.metadata) {
    if (e.set) e.set(w);
  }
  std::set<std::string_view> in_program;
  for (const WeightRef& ref : v.program.weights) in_program.insert(ref.name);
  for (const GgufTensor& t : v.file->tensors()) {
    if (in_program.count(t.name)) continue;
    w.add_tensor(t.name, t.format, {t.ne, size_t(t.n_dims)},
                 [&t](const GgufWriter::Sink& sink) { sink({t.data, size_t(t.bytes)}); });
  }
  for (const WeightRef& ref : v.program.weights) {
    const GgufTensor* t = v.file->find_tensor(ref.name);
    const std::vector<int64_t> ne =
        t ? std::vector<int64_t>(t->ne, t->ne + t->n_dims) : std::vector<int64_t>{ref.columns, ref.rows};
    const Rows rows(v, ref, options);
    w.add_tensor(ref.name, rows.format(), ne,
                 [&v, &ref, &options](const GgufWriter::Sink& sink) { Rows(v, ref, options).send(sink); });
  }
  w.write(path);
}

void write_edited(const Gguf& file, const Program& program, const ChosenFault& chosen, const Edit& edit,
                  const char* what, const std::string& path, const CureOptions& options) {
  const auto refuse = [&](const char* code, std::string expected, std::string found) {
    throw Error({.code = code,
                 .expected = std::move(expected),
                 .found = std::move(found),
                 .where = {.file = file.path()}});
  };
  const std::string name = full_name(*chosen.fault);
  if (!edit)
    refuse("fault.no_file", std::string("a fault that a file can ") + what, name + ", which none can");
  Variant v;
  v.file = &file, v.program = program;
  const std::string why = edit(v, chosen.parameter);
  if (!why.empty()) refuse("fault.applies", "a model in which " + name + " can be", why);
  write(v, path, options);
}

}  // namespace

void write_poison(const Gguf& file, const Program& program, const ChosenFault& fault, const std::string& path,
                  const CureOptions& options) {
  write_edited(file, program, fault, fault.fault->poison, "carry", path, options);
}

void write_antidote(const Gguf& file, const Program& program, const ChosenFault& fault,
                    const std::string& path, const CureOptions& options) {
  write_edited(file, program, fault, fault.fault->antidote, "undo", path, options);
}

}  // namespace plumb::trace
