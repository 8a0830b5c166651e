// Keys, Hosts and Origins.
#include "server/access.h"

#include <gtest/gtest.h>

namespace plumb::server {
namespace {

HttpRequest request(std::vector<Header> headers, std::string remote = "1.2.3.4") {
  HttpRequest r;
  r.method = "POST", r.path = "/x", r.headers = std::move(headers), r.remote = std::move(remote);
  return r;
}

int status_of(Access& access, const HttpRequest& r, bool open = false) {
  try {
    access.check(r, open);
  } catch (const HttpError& e) {
    return e.status;
  }
  return 200;
}

TEST(Access, AnswersOnlyForItsOwnNames) {
  Access access({.allow_hosts = {"box.lan"}});
  for (const char* good : {"localhost", "localhost:80", "127.0.0.1:1", "[::1]:80", "box.lan:9"})
    EXPECT_EQ(status_of(access, request({{"host", good}})), 200) << good;
  for (const char* bad : {"evil.example", "127.0.0.1.evil.example", "192.0.2.1", "localhost.evil", ""})
    EXPECT_EQ(status_of(access, request({{"host", bad}})), 421) << bad;
  Access open({.host = "0.0.0.0", .keys = {"k"}});
  EXPECT_EQ(status_of(open, request({{"host", "192.0.2.1:8080"}, {"x-api-key", "k"}})), 200);
  EXPECT_EQ(status_of(open, request({{"host", "evil.example"}, {"x-api-key", "k"}})), 421);
}

TEST(Access, RefusesPagesOfOtherOriginsButTheListedOnes) {
  Access access({.cors_origins = {"https://good.example"}});
  const auto from = [&](const char* origin) {
    return status_of(access, request({{"host", "localhost:80"}, {"origin", origin}}));
  };
  EXPECT_EQ(from("http://localhost:80"), 200);
  EXPECT_EQ(from("https://good.example"), 200);
  for (const char* bad : {"http://evil.example", "null", "http://localhost:81", "https://good.example.evil"})
    EXPECT_EQ(from(bad), 403) << bad;
  EXPECT_EQ(access.cors(request({{"origin", "http://evil.example"}})).size(), 0u);
  EXPECT_EQ(access.cors(request({{"origin", "https://good.example"}}))[0].value, "https://good.example");
}

TEST(Access, KnowsKeysAndWhoseTheyAreAndSlowsGuessing) {
  Access access({.keys = {"first", "second"}});
  const auto bearer = [&](const char* key) {
    return request({{"authorization", std::string("Bearer ") + key}});
  };
  EXPECT_EQ(status_of(access, bearer("second")), 200);
  EXPECT_EQ(access.scope(bearer("first")), 1);
  EXPECT_EQ(access.scope(bearer("second")), 2);
  EXPECT_EQ(access.scope(request({{"x-api-key", "second"}})), 2);
  EXPECT_EQ(status_of(access, request({}), true), 200);
  int refused = 0;
  for (int i = 0; i < 12; ++i) refused += status_of(access, bearer("third")) == 429;
  EXPECT_GE(refused, 1);  // the second may have turned meanwhile
  EXPECT_EQ(status_of(access, request({{"authorization", "Bearer fir"}}, "5.6.7.8")), 401);
}

TEST(Access, WithoutKeysStrangersShareNothing) {
  Access access({});
  HttpRequest a = request({}), b = request({});
  a.connection = 1, b.connection = 2;
  EXPECT_NE(access.scope(a), access.scope(b));
  a.loopback = b.loopback = true;
  EXPECT_EQ(access.scope(a), access.scope(b));
}

}  // namespace
}  // namespace plumb::server
