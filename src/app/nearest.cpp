#include "app/nearest.h"

#include <algorithm>

namespace plumb {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t old = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = old;
    }
  }
  return row[b.size()];
}

std::vector<std::string> nearest(std::string_view asked, std::vector<std::string> names, size_t count) {
  std::vector<std::pair<size_t, std::string>> scored;
  for (std::string& n : names) {
    const size_t d = edit_distance(asked.substr(0, 255), std::string_view(n).substr(0, 255));
    scored.emplace_back(d, std::move(n));
  }
  std::sort(scored.begin(), scored.end());
  std::vector<std::string> out;
  for (size_t i = 0; i < std::min(count, scored.size()); ++i) out.push_back(std::move(scored[i].second));
  return out;
}

}  // namespace plumb
