// A report as one self-contained HTML page: a verdict, maps of layers x operations, numbers of the selected
// cell. The page (src/app/report/) draws what stands in it as JSON; foreign names never become markup.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/embedded_file.h"
#include "base/json.h"

namespace plumb {

inline constexpr size_t kReportBytes = 2'000'000;

using Facts = std::vector<std::pair<std::string, std::string>>;  // word and text

struct ReportCell {
  std::string name;       // blk.L.x lies in row L and column x
  double score = 0;       // above 1: too much
  double floor = 0;       // of the errors in the strips
  std::string lead = {};  // the score in words
  Facts facts = {};
  std::vector<std::pair<int64_t, double>> by_token = {};  // position and error
  std::vector<double> by_head = {};
  bool first = false;    // where the eye should go
  bool excused = false;  // above 1 by design
};

struct ReportMap {
  std::string title, note;
  std::vector<ReportCell> cells;  // in the order of the computation
};

struct Report {
  std::string title, level, verdict;  // level: same, named, diverges or unusable
  Facts lines, facts;
  std::string unit;                 // what a score of 1 is
  std::vector<std::string> pieces;  // text of the tokens, if known
  std::vector<ReportMap> maps;
};

/// The lines of a text report: a word in twelve columns, then text.
Facts report_lines(const std::string& text);

/// The page, less than kReportBytes long: of very many cells those with the largest scores stay, of very many
/// tokens the largest error of each stretch.
std::string report_page(const Report& report);

/// Writes it whole or not at all.
void write_report(const std::string& path, const Report& report);

/// The parts of the page.
std::span<const EmbeddedFile> report_files();

}  // namespace plumb
