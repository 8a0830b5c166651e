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
  /// Binds at once: throws Error "net.bind", and "server.open" where others could ask without a key.
  Server(Service service, AccessOptions access, ListenOptions listen, bool insecure);
  ~Server();

  int port() const;
  void run();  // until a signal, and until what runs then has ended

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace plumb::server
