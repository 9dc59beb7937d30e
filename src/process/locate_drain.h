// Finding the helper program.
#pragma once

#include <string>

namespace ckptring::process {

struct DrainProgram {
  std::string path;
  bool named;  ///< by the user, so it may be the user's own
};

/// `configured` if not empty; else CKPTRING_DRAIN of the environment; else ckptring-drain beside
/// the object file that holds this code (the shared library, or the program that it is linked
/// into), or in ../libexec/ckptring/ of that. Never PATH or the current folder.
/// @throws Error process_failed naming the places looked at; invalid_argument for a relative path
DrainProgram locate_drain(const std::string& configured);

}  // namespace ckptring::process
