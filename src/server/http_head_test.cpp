// Heads of requests: what is read, what is refused and with which status.
#include <gtest/gtest.h>

#include "server/http.h"

namespace plumb::server {
namespace {

int status_of(const std::string& head) {
  try {
    parse_head(head);
  } catch (const HttpError& e) {
    return e.status;
  }
  return 200;
}

std::string with(const std::string& fields) { return "POST /x HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n"; }

TEST(ParseHead, ReadsTheRequestLineAndTheFields) {
  const HttpRequest r =
      parse_head("GET /a/b?c=d HTTP/1.1\r\nHOST: x:1\r\nOrigin:  null \r\nContent-Length: 12\r\n\r\n");
  EXPECT_EQ(r.method, "GET");
  EXPECT_EQ(r.path, "/a/b");
  EXPECT_EQ(r.query, "c=d");
  EXPECT_EQ(*r.header("host"), "x:1");
  EXPECT_EQ(*r.header("origin"), "null");
  EXPECT_EQ(r.content_length, 12);
  EXPECT_TRUE(r.keep_alive);
  EXPECT_FALSE(parse_head("GET / HTTP/1.0\r\n\r\n").keep_alive);
  EXPECT_FALSE(parse_head("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").keep_alive);
}

TEST(ParseHead, RefusesWhatTwoReadersMightReadDifferently) {
  EXPECT_EQ(status_of(with("")), 200);
  for (const char* bad :
       {"X : y\r\n", " folded\r\n", ": y\r\n", "X\r\n", "Host: b\r\n", "X: a\nY: b\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n", "Content-Length: -1\r\n", "Content-Length: \r\n",
        "Content-Length: 0x1\r\n", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"}) {
    EXPECT_EQ(status_of(with(bad)), 400) << bad;
  }
  EXPECT_EQ(status_of(with(std::string("X: a") + '\0' + "b\r\n")), 400);
  EXPECT_EQ(status_of(with("Transfer-Encoding: gzip, chunked\r\n")), 501);
  EXPECT_EQ(status_of(with("Transfer-Encoding: Chunked\r\n")), 200);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\n\r\n"), 400);  // no Host
  EXPECT_EQ(status_of("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 505);
  EXPECT_EQ(status_of(""), 400);
  EXPECT_EQ(status_of("\r\n\r\n"), 400);
}

TEST(ParseHead, TakesSizesUpToTheLimitAndNotOneMore) {
  EXPECT_EQ(status_of(with("Content-Length: " + std::to_string(kMaxBodyBytes) + "\r\n")), 200);
  EXPECT_EQ(status_of(with("Content-Length: " + std::to_string(kMaxBodyBytes + 1) + "\r\n")), 413);
  EXPECT_EQ(status_of(with("Content-Length: 99999999999999999999\r\n")), 413);
  std::string fields;
  for (int i = 1; i < kMaxHeaderFields; ++i) fields += "X: y\r\n";
  EXPECT_EQ(status_of(with(fields)), 200);
  EXPECT_EQ(status_of(with(fields + "X: y\r\n")), 431);
  const auto target = [](int64_t n) {
    return "GET /" + std::string(size_t(n - 1), 'a') + " HTTP/1.1\r\nHost: a\r\n\r\n";
  };
  EXPECT_EQ(status_of(target(kMaxUriBytes)), 200);
  EXPECT_EQ(status_of(target(kMaxUriBytes + 1)), 414);
}

TEST(HeadText, AnnouncesALengthOrChunksOrTheEndOfTheConnection) {
  EXPECT_NE(head_text(200, "a/b", {{"X", "y"}}, 5, true, 1).find("Content-Length: 5\r\nX: y\r\n"),
            std::string::npos);
  EXPECT_NE(head_text(200, "a/b", {}, -1, true, 1).find("Transfer-Encoding: chunked\r\n"), std::string::npos);
  EXPECT_EQ(head_text(200, "a/b", {}, -1, false, 0).find("Transfer-Encoding"), std::string::npos);
}

}  // namespace
}  // namespace plumb::server
