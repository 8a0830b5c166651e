#include "engine/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/cancel.h"
#include "base/error.h"
#include "base/limits.h"
#include "gguf/writer.h"
#include "quant/encode.h"

namespace plumb {
namespace {

constexpr int64_t kUnit = 1 << 15;   // weights that a thread takes at a time, at least
constexpr int64_t kPiece = 1 << 22;  // weights between two writes, at least one row

// Rows from one format to another, some megabytes at a time.
class Converter {
 public:
  Converter(const Gguf& file, const QuantizePlan::Change& change, Pool& pool)
      : file_(file), t_(*change.tensor), to_(change.to.format), pool_(pool) {
    from_bytes_ = row_bytes(t_.format, t_.columns()), to_bytes_ = row_bytes(to_, t_.columns());
    rows_per_unit_ = std::max<int64_t>(1, kUnit / std::max<int64_t>(1, t_.columns()));
  }

  int64_t rows_per_piece() const { return std::max<int64_t>(1, kPiece / std::max<int64_t>(1, t_.columns())); }

  std::span<const uint8_t> convert(int64_t first, int64_t rows) {
    out_.resize(size_t(rows * to_bytes_));
    const int units = int((rows + rows_per_unit_ - 1) / rows_per_unit_);
    std::atomic<int64_t> bad = -1;
    pool_.each(units, [&](int unit) {
      const int64_t begin = unit * rows_per_unit_, end = std::min(rows, begin + rows_per_unit_);
      std::vector<float> row(size_t(t_.columns()));
      for (int64_t r = begin; r < end; ++r) {
        decode(t_.format, t_.data + (first + r) * from_bytes_, t_.columns(), row.data());
        if (!encodable(row)) {
          bad = first + r;
          return;
        }
        encode(to_, row.data(), t_.columns(), out_.data() + r * to_bytes_);
      }
    });
    if (bad >= 0) {
      throw Error({.code = "quantize.nonfinite",
                   .expected = fmt::format("finite weights that {} can hold", info(to_).name),
                   .found = fmt::format("another in row {}", bad.load()),
                   .where = {.file = file_.files()[size_t(t_.file)], .tensor = std::string(t_.name)}});
    }
    return out_;
  }

 private:
  // Floats keep what they are; codes need finite weights within the range of f16 scales.
  bool encodable(const std::vector<float>& row) const {
    if (to_ == Format::F32 || to_ == Format::BF16) return true;
    return std::all_of(row.begin(), row.end(), [](float v) { return std::abs(v) < 65520.0f; });
  }

  const Gguf& file_;
  const GgufTensor& t_;
  Format to_;
  Pool& pool_;
  int64_t from_bytes_, to_bytes_, rows_per_unit_;
  std::vector<uint8_t> out_;
};

void read_shape(const Gguf& file, MixOptions& mix) {
  const std::string arch(file.text("general.architecture").value_or(""));
  mix.n_layer = int(file.integer(arch + ".block_count", 1, kMaxLayers).value_or(0));
  const std::string heads = arch + ".attention.head_count";
  if (const GgufValue* v = file.find(heads); v == nullptr || v->is_array) return;
  const int64_t n_head = file.integer(heads, 1, kMaxHeads).value_or(1);
  const GgufValue* kv = file.find(heads + "_kv");
  if (kv && !kv->is_array)
    mix.n_gqa = int(n_head / file.integer(heads + "_kv", 1, kMaxHeads).value_or(n_head));
}

}  // namespace

QuantizePlan plan_quantize(const Gguf& file, const QuantizeOptions& options) {
  MixOptions mix = options.mix;
  read_shape(file, mix);
  std::vector<MixTensor> tensors;
  for (const GgufTensor& t : file.tensors()) tensors.push_back({t.name, t.format, t.n_dims, t.columns()});
  const std::vector<MixChoice> choices = choose_formats(tensors, mix);
  QuantizePlan plan;
  plan.file_type = mix.type->id;
  for (size_t i = 0; i < choices.size(); ++i) {
    const GgufTensor& t = file.tensors()[i];
    const bool changed = choices[i].format != t.format, again = changed && is_quantised(t.format);
    if (again && !options.allow_requantize) {
      throw Error({.code = "quantize.again",
                   .expected = "F32, F16 or BF16, of which codes can be made without a second loss",
                   .found = info(t.format).name,
                   .where = {.file = file.files()[size_t(t.file)], .tensor = std::string(t.name)},
                   .remedy = "quantise the original, or accept the loss with --allow-requantize"});
    }
    plan.changes.push_back({&t, choices[i], again});
    plan.again += again, plan.fallbacks += choices[i].fallback;
    plan.bytes += t.rows() * row_bytes(choices[i].format, t.columns());
  }
  return plan;
}

void quantize(const Gguf& file, const QuantizePlan& plan, const std::string& path, Pool& pool,
              const Progress& progress, std::atomic<bool>* cancel) {
  GgufWriter w;
  for (const GgufValue& v : file.values()) {
    if (!v.key.starts_with("split.")) w.set(v);
  }
  w.set("general.quantization_version", uint32_t(2));
  w.set("general.file_type", uint32_t(plan.file_type));
  int64_t done = 0, all = 0;
  for (const QuantizePlan::Change& c : plan.changes) all += c.tensor->elements();
  const auto step = [&](const GgufTensor& t, int64_t weights) {
    stop_if(cancel);
    done += weights;
    progress(std::string(t.name).c_str(), double(done) / double(std::max<int64_t>(1, all)));
  };
  for (const QuantizePlan::Change& c : plan.changes) {
    const GgufTensor& t = *c.tensor;
    w.add_tensor(t.name, c.to.format, {t.ne, size_t(t.n_dims)}, [&, c](const GgufWriter::Sink& sink) {
      Converter converter(file, c, pool);
      const int64_t row = row_bytes(t.format, t.columns());
      for (int64_t r = 0; r < t.rows(); r += converter.rows_per_piece()) {
        const int64_t rows = std::min(t.rows() - r, converter.rows_per_piece());
        sink(c.to.format == t.format ? std::span(t.data + r * row, size_t(rows * row))
                                     : converter.convert(r, rows));
        step(t, rows * t.columns());
      }
    });
  }
  w.write(path);
}

}  // namespace plumb
