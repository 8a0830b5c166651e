// The HTTP server of a model: routes, access, and the life from the first connection to the last.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "server/access.h"
#include "server/listener.h"
#include "server/service.h"

namespace plumb::server {

class Server {
 public:
  /// Binds at once: throws Error "net.bind", and "usage.open" where others could ask without a key. `log`, if
  /// any, hears a line of JSON for each request that has ended, from any thread, one at a time.
  Server(AccessOptions access, ListenOptions listen, bool insecure,
         std::function<void(const std::string& line)> log = {});
  ~Server();

  int port() const;
  void run();   // until a signal, and until what runs then has ended
  void stop();  // from any thread: ends run() at once

  /// From now on requests are answered; before, all but the page get 503.
  void open(Service service);

  /// Method and path of each route.
  static std::vector<std::pair<std::string, std::string>> routes();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace plumb::server
