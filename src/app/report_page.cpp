#include "app/report_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "base/file.h"

namespace plumb {
namespace {

struct Limits {
  size_t cells = 4000, bars = 256, pieces = 1024, text = 200;
};

// Three digits: what a reader compares, in a third of the bytes.
Json rounded(double x) {
  if (!std::isfinite(x)) return std::isnan(x) ? "nan" : "inf";
  return std::strtod(fmt::format("{:.3g}", x).c_str(), nullptr);
}

std::string clipped(const std::string& text, size_t most) {
  if (text.size() <= most) return text;
  size_t end = most;
  while (end > 0 && (uint8_t(text[end]) & 0xc0) == 0x80) --end;  // not within a character
  return text.substr(0, end) + "...";
}

Json pairs(const Facts& facts, size_t most) {
  Json::Array list;
  for (const auto& [word, text] : facts) list.push_back(Json::Array{word, clipped(text, most)});
  return list;
}

// Bars [from, to, error]: the positions in at most `most` stretches.
Json strip(const std::vector<std::pair<int64_t, double>>& errors, size_t most) {
  Json::Array bars;
  if (most == 0) return bars;
  const size_t each = (errors.size() + most - 1) / most;
  for (size_t i = 0; i < errors.size(); i += each) {
    const size_t end = std::min(errors.size(), i + each);
    double worst = 0;
    for (size_t k = i; k < end; ++k)
      worst = std::isnan(errors[k].second) ? INFINITY : std::max(worst, errors[k].second);
    bars.push_back(Json::Array{errors[i].first, errors[end - 1].first, rounded(worst)});
  }
  return bars;
}

Json cell_json(const ReportCell& c, const Limits& limits) {
  Json j;
  j.set("name", clipped(c.name, limits.text)),
      j.set("score", rounded(c.score > 1 ? std::max(c.score, 1.01) : std::min(c.score, 1.0))),
      j.set("floor", rounded(c.floor));
  j.set("lead", clipped(c.lead, limits.text)), j.set("facts", pairs(c.facts, limits.text));
  if (c.by_token.size() > 1) j.set("tokens", strip(c.by_token, limits.bars));
  if (c.by_head.size() > 1 && c.by_head.size() <= limits.bars) {
    Json::Array heads;
    for (double e : c.by_head) heads.push_back(rounded(e));
    j.set("heads", std::move(heads));
  }
  if (c.first) j.set("first", true);
  if (c.excused) j.set("excused", true);
  return j;
}

// Those with the largest scores, in their order.
std::vector<const ReportCell*> chosen(const ReportMap& map, size_t most) {
  std::vector<const ReportCell*> list;
  for (const ReportCell& c : map.cells) list.push_back(&c);
  if (list.size() <= most) return list;
  const auto score = [](const ReportCell* c) { return std::isnan(c->score) ? INFINITY : c->score; };
  std::stable_sort(list.begin(), list.end(),
                   [&](const auto* x, const auto* y) { return score(x) > score(y); });
  list.resize(most);
  std::sort(list.begin(), list.end());  // they lie in one array
  return list;
}

Json map_json(const ReportMap& map, const Limits& limits) {
  Json::Array cells;
  for (const ReportCell* c : chosen(map, limits.cells)) cells.push_back(cell_json(*c, limits));
  std::string note = map.note;
  if (cells.size() < map.cells.size())
    note += fmt::format(" {} cells with smaller scores are left out.", map.cells.size() - cells.size());
  Json j;
  j.set("title", map.title), j.set("note", note), j.set("cells", std::move(cells));
  return j;
}

Json report_json(const Report& r, const Limits& limits) {
  Json j;
  j.set("title", r.title), j.set("level", r.level), j.set("verdict", clipped(r.verdict, limits.text));
  j.set("lines", pairs(r.lines, 4 * limits.text)), j.set("facts", pairs(r.facts, 4 * limits.text));
  j.set("unit", r.unit);
  Json::Array pieces, maps;
  for (size_t i = 0; i < std::min(r.pieces.size(), limits.pieces); ++i)
    pieces.push_back(clipped(r.pieces[i], 40));
  for (const ReportMap& map : r.maps) maps.push_back(map_json(map, limits));
  j.set("tokens", std::move(pieces)), j.set("maps", std::move(maps));
  return j;
}

std::string_view file(std::string_view name) {
  for (const EmbeddedFile& f : report_files()) {
    if (f.name == name) return f.text;
  }
  PLUMB_CHECK(false);
  return {};
}

// In a script element nothing but "</script" and "<!--" means anything, and both need the character.
std::string inside_script(const std::string& json) {
  std::string out;
  for (char c : json) {
    if (c == '<' || c == '>' || c == '&') {
      out += fmt::format("\\u{:04x}", int(c));
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

Facts report_lines(const std::string& text) {
  constexpr size_t kWord = 12;
  Facts lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    const std::string word = line.substr(0, kWord);
    lines.emplace_back(word.substr(0, word.find_last_not_of(' ') + 1),
                       line.size() > kWord ? line.substr(kWord + 1) : std::string());
    at = end + 1;
  }
  return lines;
}

std::string report_page(const Report& report) {
  Limits limits;
  while (true) {
    const std::string data = inside_script(dump(report_json(report, limits), {.ascii = true}));
    const std::pair<std::string_view, std::string_view> parts[] = {
        {"/*CSS*/", file("page.css")}, {"/*DATA*/", data}, {"/*SCRIPT*/", file("page.js")}};
    std::string_view rest = file("page.html");
    std::string page;
    for (const auto& [mark, text] : parts) {
      const size_t at = rest.find(mark);
      PLUMB_CHECK(at != std::string_view::npos);
      page.append(rest.substr(0, at)).append(text);
      rest.remove_prefix(at + mark.size());
    }
    page += rest;
    if (page.size() < kReportBytes) return page;
    PLUMB_CHECK(limits.cells > 0);
    limits = {limits.cells / 2, limits.bars / 2, limits.pieces / 2, std::max<size_t>(limits.text / 2, 50)};
  }
}

void write_report(const std::string& path, const Report& report) {
  atomic_replace(path, report_page(report));
}

}  // namespace plumb
