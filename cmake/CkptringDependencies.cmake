# What is built on. tools/setup installs all of it.
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(Boost REQUIRED)  # headers only: Interprocess
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(ISAL REQUIRED)
find_package(liburing REQUIRED)

# Flags and libraries that every folder shares.
add_library(ckptring_options INTERFACE)
target_compile_options(ckptring_options INTERFACE
  -Wall -Wextra -Wconversion -Wshadow -Werror)
if(CKPTRING_SANITIZER STREQUAL "thread")
  target_compile_options(ckptring_options INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
  target_link_options(ckptring_options INTERFACE -fsanitize=thread)
elseif(CKPTRING_SANITIZER STREQUAL "address")
  target_compile_options(ckptring_options INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  target_link_options(ckptring_options INTERFACE -fsanitize=address,undefined)
elseif(NOT CKPTRING_SANITIZER STREQUAL "")
  message(FATAL_ERROR "CKPTRING_SANITIZER is '${CKPTRING_SANITIZER}': use thread or address")
endif()

if(CKPTRING_TORCH)
  include(CkptringTorch)
endif()
