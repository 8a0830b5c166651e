#include "gguf/gguf.h"

#include <algorithm>
#include <numeric>

#include "base/file.h"
#include "gguf/split.h"
#include "gguf/state.h"
#include "gguf/value.h"

namespace plumb {
namespace {

// Sorts the tensors of all parts by name and refuses a name that is given twice.
NameIndex index_names(std::span<const Part> parts, std::span<const GgufTensor> tensors) {
  NameIndex index(tensors.size());
  std::iota(index.begin(), index.end(), 0u);
  std::sort(index.begin(), index.end(), [&](uint32_t a, uint32_t b) {
    const int order = tensors[a].name.compare(tensors[b].name);
    return order != 0 ? order < 0 : a < b;
  });
  std::vector<int64_t> offsets;  // of the table's entries
  for (size_t i = 1; i < index.size(); ++i) {
    const GgufTensor& first = tensors[index[i - 1]];
    const GgufTensor& second = tensors[index[i]];
    if (first.name != second.name) continue;
    for (const Part& part : parts)
      offsets.insert(offsets.end(), part.info_offsets.begin(), part.info_offsets.end());
    throw Error({.code = "gguf.name_duplicate",
                 .expected = "each tensor once",
                 .found = fmt::format("the tensor again, first at byte {} of {}", offsets[index[i - 1]],
                                      parts[size_t(first.file)].file),
                 .where = {.file = parts[size_t(second.file)].file,
                           .offset = offsets[index[i]],
                           .tensor = std::string(second.name)}});
  }
  return index;
}

// The file that a part of a split model should have been opened by.
[[noreturn]] void refuse_part(const Part& part, int64_t no, int64_t count) {
  const std::optional<SplitName> name = parse_split_name(part.file);
  const std::string first =
      name ? split_path(name->prefix, 1, count) : "the file that ends in " + split_path("", 1, count);
  const GgufValue* v = part.find("split.no");
  throw Error({.code = "gguf.split_first",
               .expected = fmt::format("the first of {} parts", count),
               .found = fmt::format("part {}", no + 1),
               .where = {.file = part.file, .offset = v ? v->offset : -1, .key = "split.no"},
               .remedy = "open " + first});
}

// Checks that an opened file may stand for its whole model, and gives the names of all its parts.
std::vector<std::string> part_paths(const Part& first, int64_t count) {
  const GgufValue* no = first.find("split.no");
  const std::optional<int64_t> n = no && !no->is_array && is_integer(no->type) ? integer_at(*no, 0) : 0;
  if (n && *n > 0 && *n < count) refuse_part(first, *n, count);
  check_split(first, 0, count);
  const std::optional<SplitName> name = parse_split_name(first.file);
  if (!name || name->part != 1 || name->count != count) {
    throw Error(
        {.code = "gguf.split_name",
         .expected =
             fmt::format("a name that ends in {}, as split.count is {}", split_path("", 1, count), count),
         .found = printable(first.file),
         .where = {.file = first.file, .offset = first.find("split.count")->offset, .key = "split.count"},
         .remedy = "give all parts the names that they were written under"});
  }
  std::vector<std::string> paths;
  for (int64_t i = 1; i <= count; ++i) paths.push_back(split_path(name->prefix, i, count));
  return paths;
}

MappedFile open_part(const std::string& path, int64_t no, int64_t count, const Part& first) {
  try {
    return MappedFile::open(path);
  } catch (const Error& e) {
    throw Error(
        {.code = "gguf.split_missing",
         .expected = fmt::format("part {} of {}, {}", no + 1, count, printable(path, 400)),
         .found = e.found(),
         .where = {.file = first.file, .offset = first.find("split.count")->offset, .key = "split.count"},
         .remedy = "put all parts into one folder"});
  }
}

}  // namespace

Gguf::Gguf(std::unique_ptr<State> state) : state_(std::move(state)) {}
Gguf::Gguf(Gguf&&) noexcept = default;
Gguf& Gguf::operator=(Gguf&&) noexcept = default;
Gguf::~Gguf() = default;

void Gguf::State::join(std::vector<Part> parts) {
  check_parts(parts);
  Part& first = parts.front();
  version = first.version;
  alignment = first.alignment;
  metadata_end = first.metadata_end;
  for (size_t i = 0; i < parts.size(); ++i) {
    bytes += parts[i].file_bytes;
    for (GgufTensor& t : parts[i].tensors) t.file = int(i);
    tensors.insert(tensors.end(), parts[i].tensors.begin(), parts[i].tensors.end());
  }
  names = index_names(parts, tensors);
  values = std::move(first.values);
  keys = std::move(first.keys);
  files.clear();
  for (Part& part : parts) files.push_back(std::move(part.file));
}

Gguf Gguf::open(const std::string& path) {
  auto state = std::make_unique<State>();
  state->path = path;
  state->maps.push_back(MappedFile::open(path));
  std::vector<Part> parts;
  parts.push_back(read_part(state->maps[0].bytes(), path));
  const int64_t count = split_count(parts[0]);
  if (count > 1) {
    const std::vector<std::string> paths = part_paths(parts[0], count);
    for (int64_t i = 1; i < count; ++i) {
      state->maps.push_back(open_part(paths[size_t(i)], i, count, parts[0]));
      parts.push_back(read_part(state->maps.back().bytes(), paths[size_t(i)]));
      check_split(parts.back(), i, count);
    }
  }
  state->join(std::move(parts));
  return Gguf(std::move(state));
}

Gguf Gguf::parse(std::span<const uint8_t> bytes, const std::string& name) {
  return parse(std::span(&bytes, 1), std::span(&name, 1));
}

Gguf Gguf::parse(std::span<const std::span<const uint8_t>> bytes, std::span<const std::string> names) {
  PLUMB_CHECK(!bytes.empty() && bytes.size() == names.size());
  auto state = std::make_unique<State>();
  state->path = names[0];
  std::vector<Part> parts;
  for (size_t i = 0; i < bytes.size(); ++i) parts.push_back(read_part(bytes[i], names[i]));
  const int64_t given = int64_t(parts.size());
  if (given > 1 || split_count(parts[0]) > 1) {
    for (int64_t i = 0; i < given; ++i) check_split(parts[size_t(i)], i, given);
  }
  state->join(std::move(parts));
  return Gguf(std::move(state));
}

const std::string& Gguf::path() const { return state_->path; }
uint32_t Gguf::version() const { return state_->version; }
uint64_t Gguf::alignment() const { return uint64_t(state_->alignment); }
int64_t Gguf::file_bytes() const { return state_->bytes; }
std::span<const GgufValue> Gguf::values() const { return state_->values; }
std::span<const GgufTensor> Gguf::tensors() const { return state_->tensors; }
const std::vector<std::string>& Gguf::files() const { return state_->files; }
std::vector<std::span<const uint8_t>> Gguf::contents() const {
  std::vector<std::span<const uint8_t>> out;
  for (const MappedFile& map : state_->maps) out.push_back(map.bytes());
  return out;
}

const GgufValue* Gguf::find(std::string_view key) const {
  return find_value(state_->values, state_->keys, key);
}

const GgufTensor* Gguf::find_tensor(std::string_view name) const {
  const auto it =
      std::lower_bound(state_->names.begin(), state_->names.end(), name,
                       [&](uint32_t i, std::string_view n) { return state_->tensors[i].name < n; });
  if (it == state_->names.end() || state_->tensors[*it].name != name) return nullptr;
  return &state_->tensors[*it];
}

}  // namespace plumb
