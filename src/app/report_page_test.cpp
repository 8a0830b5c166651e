// The page stays small and whole whatever it holds, and nothing in it becomes markup.
#include "app/report_page.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/json.h"

namespace plumb {
namespace {

std::string data_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const size_t from = page.find(open) + open.size();
  return page.substr(from, page.find("</script>", from) - from);
}

Report report_of(std::vector<ReportCell> cells) {
  Report r{.title = "t",
           .level = "same",
           .verdict = "SAME",
           .lines = {},
           .facts = {},
           .unit = "1",
           .pieces = {},
           .maps = {}};
  r.maps.push_back({.title = "m", .note = "n", .cells = std::move(cells)});
  return r;
}

TEST(ReportPage, HostileNamesStayText) {
  const std::string evil =
      "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>&lt;\"'\xff\xe2\x80\xa8";
  Report r = report_of({{.name = evil, .lead = evil, .facts = {{evil, evil}}}});
  r.title = r.verdict = evil, r.lines = r.facts = {{evil, evil}}, r.pieces = {evil};
  const std::string page = report_page(r), plain = report_page(report_of({}));
  const auto count = [](const std::string& text, const std::string& what) {
    int n = 0;
    for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
    return n;
  };
  for (const char* what : {"<script", "</script", "<!--", "<img", "onerror=alert(1)>"})
    EXPECT_EQ(count(page, what), count(plain, what)) << what;
  EXPECT_EQ(data_of(page).find_first_of("<>&"), std::string::npos);
  const Json data = parse_json(data_of(page), "page");
  const std::string* name =
      (*(*data.find("maps")->array())[0].find("cells")->array())[0].find("name")->text();
  EXPECT_EQ(name->substr(0, 9), "</script>");
}

TEST(ReportPage, NeedsNothingFromOutside) {
  const std::string page = report_page(report_of({}));
  for (const char* what : {"http", "src=", "@import", "url(", "innerHTML", "eval("})
    EXPECT_EQ(page.find(what), std::string::npos) << what;
}

TEST(ReportPage, OfVeryManyCellsAndTokensKeepsTheLargestWithinItsSize) {
  std::vector<ReportCell> cells(60000);
  for (size_t i = 0; i < cells.size(); ++i) {
    cells[i].name = "blk." + std::to_string(i) + "." + std::string(300, '<');
    cells[i].score = i == 31234 ? 7 : 0.5;
    cells[i].facts = {{"a", std::string(500, '<')}};
    for (int64_t t = 0; i % 100 == 34 && t < 5000; ++t)
      cells[i].by_token.emplace_back(t, t == 777 ? 3.0 : 1.0);
  }
  const std::string page = report_page(report_of(std::move(cells)));
  EXPECT_LT(page.size(), kReportBytes);
  const Json data = parse_json(data_of(page), "page");
  const Json& map = (*data.find("maps")->array())[0];
  EXPECT_NE(map.find("note")->text()->find("left out"), std::string::npos);
  bool largest = false;
  for (const Json& c : *map.find("cells")->array()) {
    if (!c.find("name")->text()->starts_with("blk.31234.")) continue;
    for (const Json& bar : *c.find("tokens")->array()) {
      const Json::Array& b = *bar.array();
      const bool at = b[0].integer() <= 777 && 777 <= b[1].integer();
      EXPECT_EQ(b[2].number(), at ? 3.0 : 1.0);
      largest = largest || at;
    }
  }
  EXPECT_TRUE(largest);
}

TEST(ReportPage, NumbersThatAreNoneAreWrittenAsText) {
  const std::string page = report_page(report_of({{.name = "x", .score = NAN, .floor = INFINITY}}));
  EXPECT_NE(data_of(page).find("\"score\":\"nan\",\"floor\":\"inf\""), std::string::npos);
}

TEST(ReportPage, LinesOfATextReportHaveAWordAndAText) {
  const Facts lines = report_lines("SAME         3 values\n             more\nX\n");
  EXPECT_EQ(lines, (Facts{{"SAME", "3 values"}, {"", "more"}, {"X", ""}}));
}

}  // namespace
}  // namespace plumb
