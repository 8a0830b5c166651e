// The document at /openapi.json says what there is.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/json.h"
#include "server/server.h"
#include "server/web_files.h"

namespace plumb::server {
namespace {

Json document() {
  const auto files = web_files();
  const auto it = std::find_if(files.begin(), files.end(),
                               [](const EmbeddedFile& f) { return f.name == "openapi.json"; });
  return it == files.end() ? Json() : parse_json(it->text, "openapi.json");
}

TEST(OpenApi, NamesEveryRouteAndNoOther) {
  const Json found = document();
  std::set<std::pair<std::string, std::string>> named, known;
  for (const auto& [path, item] : *found.find("paths")->object()) {
    const Json* methods = &item;
    if (const Json* other = item.find("$ref")) {  // "#/paths/~1v1~1models"
      std::string of = other->text()->substr(8);
      for (size_t at = 0; (at = of.find("~1", at)) != std::string::npos;) of.replace(at, 2, "/");
      methods = found.find("paths")->find(of);
    }
    ASSERT_TRUE(methods && methods->object()) << path;
    named.emplace(methods->find("get") ? "GET" : "POST", path);
  }
  for (const auto& route : Server::routes()) known.insert(route);
  EXPECT_EQ(named, known);
}

}  // namespace
}  // namespace plumb::server
