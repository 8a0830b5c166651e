// Two files of weights: each kind of difference, planted into tiny models, is named; honest formats are none.
#include "trace/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>

#include "gguf/writer.h"
#include "quant/encode.h"
#include "trace/test_support.h"

namespace plumb::trace {
namespace {

using testing::code_of;
using testing::Folder;
using ::testing::HasSubstr;
using testing::TinyFile;
using Verdict = WeightDifference::Verdict;

// A tensor on its way from one file to another.
struct Part {
  std::string name;
  Format format;
  std::vector<int64_t> ne;
  std::vector<uint8_t> bytes;

  int64_t columns() const { return ne[0]; }
  int64_t rows() const { return ne.size() > 1 ? ne[1] : 1; }
  std::vector<float> values() const {
    std::vector<float> x(size_t(columns() * rows()));
    decode(format, bytes.data(), int64_t(x.size()), x.data());
    return x;
  }
  void store(Format f, const std::vector<float>& x) {
    format = f, bytes.resize(size_t(row_bytes(f, int64_t(x.size()))));
    encode(f, x.data(), int64_t(x.size()), bytes.data());
  }
  // Row r of the new is row from(r) of the old.
  void reorder(const std::function<int64_t(int64_t)>& from) {
    const std::vector<uint8_t> old = bytes;
    const size_t size = bytes.size() / size_t(rows());
    for (int64_t r = 0; r < rows(); ++r)
      std::copy_n(old.begin() + from(r) * int64_t(size), size, bytes.begin() + r * int64_t(size));
  }
};
using Parts = std::map<std::string, Part>;

class WeightsOf : public ::testing::Test {
 protected:
  std::string edited(const std::string& from, const std::function<void(Parts&)>& edit) {
    const Gguf file = Gguf::open(from);
    GgufWriter w;
    for (const GgufValue& v : file.values()) w.set(v);
    Parts parts;
    for (const GgufTensor& t : file.tensors())
      parts[std::string(t.name)] = {
          std::string(t.name), t.format, {t.ne, t.ne + t.n_dims}, {t.data, t.data + t.bytes}};
    edit(parts);
    for (auto& [name, p] : parts) w.add_tensor(name, p.format, p.ne, p.bytes);
    const std::string path = folder.path + "/" + std::to_string(++count) + ".gguf";
    w.write(path);
    return path;
  }
  WeightsDiff between(const std::string& x, const std::string& y) {
    a.emplace(Weights::open(x)), b.emplace(Weights::open(y));
    if (a->is_gguf() && !b->is_gguf()) b->adapt_to(*a);
    return diff_weights(*a, *b, pool, [](const char*, double) {});
  }
  // The cause of each tensor that differs.
  std::map<std::string, std::string> causes(const std::string& x, const std::function<void(Parts&)>& edit) {
    std::map<std::string, std::string> out;
    const WeightsDiff diff = between(x, edited(x, edit));
    for (const WeightDifference& d : diff.tensors) {
      if (d.verdict == Verdict::differs) out[d.name] = d.cause;
    }
    return out;
  }
  // The cause of the one tensor that differs.
  std::string cause(const std::string& x, const std::string& name, const std::function<void(Part&)>& edit) {
    const auto all = causes(x, [&](Parts& parts) { edit(parts.at(name)); });
    EXPECT_EQ(all.size(), 1u);
    return all.count(name) ? all.at(name) : "the tensor does not differ";
  }

  const Folder folder;
  int count = 0;
  Pool pool{2};
  std::optional<Weights> a, b;
  const TinyFile f32{{.format = Format::F32}}, q8{{.format = Format::Q8_0}}, q4{{.format = Format::Q4_0}};
  const std::string gate = "blk.1.ffn_gate.weight", q = "blk.1.attn_q.weight";
};

TEST_F(WeightsOf, AFileIsTheSameAsItselfBitForBit) {
  for (const TinyFile* file : {&f32, &q8, &q4}) {
    const WeightsDiff d = between(file->path(), file->path());
    EXPECT_EQ(d.count(Verdict::same), int(d.tensors.size()));
    EXPECT_EQ(d.common, int64_t(d.tensors.size()));
  }
}

TEST_F(WeightsOf, WhatAFormatRoundsIsNoDifference) {
  for (const TinyFile* file : {&f32, &q8, &q4}) {
    for (Format f : {Format::F16, Format::BF16, Format::Q8_0, Format::Q5_0, Format::Q5_1, Format::Q4_0,
                     Format::Q4_1, Format::IQ4_NL}) {
      const WeightsDiff d = between(file->path(), edited(file->path(), [&](Parts& parts) {
                                      for (auto& [name, p] : parts) {
                                        if (p.rows() > 1) p.store(f, p.values());
                                      }
                                    }));
      EXPECT_EQ(d.count(Verdict::differs), 0) << info(f).name;
    }
  }
}

TEST_F(WeightsOf, TransposedAndReshapedMatricesAreNamed) {
  const auto flip = [](Part& p) { std::swap(p.ne[0], p.ne[1]); };
  const auto transpose = [](Part& p) {
    const std::vector<float> x = p.values();
    std::vector<float> y(x.size());
    for (int64_t r = 0; r < p.rows(); ++r) {
      for (int64_t c = 0; c < p.columns(); ++c) y[size_t(c * p.rows() + r)] = x[size_t(r * p.columns() + c)];
    }
    p.store(p.format, y);
  };
  const auto both = [&](Part& p) { transpose(p), flip(p); };
  for (const TinyFile* file : {&f32, &q8}) {
    EXPECT_EQ(cause(file->path(), gate, flip), "shape read in the other order");
    EXPECT_EQ(cause(file->path(), gate, both), "transposed");
    EXPECT_EQ(cause(file->path(), gate, transpose), "transposed under the same shape");
    EXPECT_EQ(cause(file->path(), q, transpose), "transposed");
  }
}

TEST_F(WeightsOf, PermutedAndShiftedRowsAreNamed) {
  for (const TinyFile* file : {&f32, &q8, &q4}) {
    EXPECT_EQ(
        cause(file->path(), q,
              [](Part& p) { p.reorder([](int64_t r) { return r / 16 * 16 + r % 16 / 2 + r % 2 * 8; }); }),
        "rows permuted by heads: halves in the first, pairs in the second (head size 16)");
    EXPECT_EQ(cause(file->path(), q,
                    [](Part& p) {
                      p.reorder([](int64_t r) {
                        return r / 16 * 16 + (r % 16 < 8 ? 2 * (r % 16) : 2 * (r % 16 - 8) + 1);
                      });
                    }),
              "rows permuted by heads: pairs in the first, halves in the second (head size 16)");
    EXPECT_EQ(cause(file->path(), gate,
                    [](Part& p) { p.reorder([](int64_t r) { return std::min<int64_t>(r + 1, 95); }); }),
              "rows shifted by -1");
  }
}

TEST_F(WeightsOf, ExchangedTensorsAreNamedOnBothSides) {
  const std::string up = "blk.1.ffn_up.weight";
  for (const TinyFile* file : {&f32, &q4}) {
    const auto all =
        causes(file->path(), [&](Parts& parts) { std::swap(parts.at(gate).bytes, parts.at(up).bytes); });
    ASSERT_EQ(all.size(), 2u);
    EXPECT_EQ(all.at(gate), "the second holds the first's " + gate + " in " + up);
    EXPECT_EQ(all.at(up), "the second holds the first's " + up + " in " + gate);
  }
}

TEST_F(WeightsOf, SwappedBytesAreNamed) {
  const auto swap = [](int each) {
    return [each](Part& p) {
      for (size_t i = 0; i < p.bytes.size(); i += size_t(each)) std::swap(p.bytes[i], p.bytes[i + 1]);
    };
  };
  EXPECT_EQ(cause(q4.path(), gate, swap(18)), "the second has the bytes of its scales swapped");
  EXPECT_EQ(cause(q8.path(), gate, swap(34)), "the second has the bytes of its scales swapped");
  EXPECT_EQ(cause(f32.path(), gate,
                  [](Part& p) {
                    for (size_t i = 0; i < p.bytes.size(); i += 4)
                      std::reverse(p.bytes.begin() + int64_t(i), p.bytes.begin() + int64_t(i) + 4);
                  }),
            "the second has the bytes of its numbers swapped");
}

TEST_F(WeightsOf, FactorsAndNormsWithAOneAreNamed) {
  const auto times = [](float factor) {
    return [=](Part& p) {
      std::vector<float> x = p.values();
      for (float& v : x) v *= factor;
      p.store(p.format, x);
    };
  };
  EXPECT_EQ(cause(f32.path(), gate, times(1.02f)), "the second is the first times 1.02");
  EXPECT_EQ(cause(f32.path(), gate, times(-1)), "the second is the first times -1");
  EXPECT_THAT(cause(q4.path(), gate, times(1.5f)), HasSubstr("the second is the first times 1."));
  EXPECT_EQ(cause(f32.path(), "blk.2.ffn_norm.weight",
                  [](Part& p) {
                    std::vector<float> x = p.values();
                    for (float& v : x) v += 1;
                    p.store(p.format, x);
                  }),
            "the second is the first plus 1");
}

TEST_F(WeightsOf, SingleWrongRowsNaNAndMissingTensorsAreNamed) {
  EXPECT_EQ(
      cause(q8.path(), gate, [](Part& p) { std::fill_n(p.bytes.begin() + 68 * 7 + 2, 20, uint8_t(77)); }),
      "only row 7");
  EXPECT_EQ(cause(f32.path(), gate,
                  [](Part& p) {
                    std::vector<float> x = p.values();
                    x[70] = NAN;
                    std::copy_n(reinterpret_cast<const uint8_t*>(x.data()), p.bytes.size(), p.bytes.begin());
                  }),
            "one of them holds NaN or infinity");
  const auto all = causes(q8.path(), [&](Parts& parts) { parts.erase(gate), parts["more"] = parts.at(q); });
  EXPECT_EQ(all, (std::map<std::string, std::string>{{gate, "missing in the second"},
                                                     {"more", "missing in the first"}}));
}

TEST_F(WeightsOf, AnotherModelDiffersInEveryMatrixWithoutACause) {
  const TinyFile other({.format = Format::Q8_0, .seed = 2});
  const WeightsDiff d = between(q8.path(), other.path());
  EXPECT_EQ(d.count(Verdict::differs), int(d.tensors.size()));
  EXPECT_EQ(d.unnamed(), int(d.tensors.size()));
}

TEST(WeightNames, OfHuggingFaceBecomeThoseOfGguf) {
  EXPECT_EQ(gguf_name("model.embed_tokens.weight", false), "token_embd.weight");
  EXPECT_EQ(gguf_name("lm_head.weight", false), "output.weight");
  EXPECT_EQ(gguf_name("model.layers.11.self_attn.k_proj.bias", false), "blk.11.attn_k.bias");
  EXPECT_EQ(gguf_name("model.layers.0.post_attention_layernorm.weight", false), "blk.0.ffn_norm.weight");
  EXPECT_EQ(gguf_name("language_model.model.layers.0.post_attention_layernorm.weight", true),
            "blk.0.post_attention_norm.weight");
  EXPECT_EQ(gguf_name("model.layers.3.unheard.of", false), "model.layers.3.unheard.of");
  EXPECT_EQ(gguf_name("model.layers.", false), "model.layers.");
  EXPECT_EQ(gguf_name("model.layers.3", false), "model.layers.3");
}

TEST(WeightFiles, ForeignIndexesAreRefused) {
  const Folder folder;
  const auto write = [&](const std::string& text) {
    std::ofstream(folder.path + "/model.safetensors.index.json") << text;
  };
  for (const char* text :
       {"{}", R"({"weight_map":3})", R"({"weight_map":{"x":"../y"}})", R"({"weight_map":{"x":1}})"}) {
    write(text);
    EXPECT_EQ(code_of([&] { Weights::open(folder.path); }), "weights.index") << text;
  }
  write(R"({"weight_map":{"x":"none.safetensors"}})");
  EXPECT_EQ(code_of([&] { Weights::open(folder.path); }), "file.open");
}

}  // namespace
}  // namespace plumb::trace
