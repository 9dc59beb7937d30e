#include "base/system_words.h"

#include <csignal>
#include <cstring>

namespace ckptring::base {
namespace {

std::string words_or_number(const char* words, const char* kind, int number) {
  return words != nullptr ? words : kind + std::to_string(number);
}

}  // namespace

std::string words_of_errno(int errno_value) {
  return words_or_number(::strerrordesc_np(errno_value), "error ", errno_value);
}

std::string words_of_signal(int signal) {
  return words_or_number(::sigdescr_np(signal), "signal ", signal);
}

}  // namespace ckptring::base
