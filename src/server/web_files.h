// The page that the server shows to browsers: the files of src/server/web.
#pragma once

#include "base/embedded_file.h"

namespace plumb {

std::span<const EmbeddedFile> web_files();

}  // namespace plumb
