# What is built on. tools/setup installs all of it.
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(Boost REQUIRED)  # headers only: Interprocess
find_package(fmt REQUIRED)
# torch's include folder has a newer fmt among its own headers, and comes before /usr/include: one
# program would get both. This root comes before torch's.
get_target_property(fmt_include fmt::fmt-header-only INTERFACE_INCLUDE_DIRECTORIES)
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/include_roots/fmt)
file(CREATE_LINK ${fmt_include}/fmt ${PROJECT_BINARY_DIR}/include_roots/fmt/fmt SYMBOLIC)
target_include_directories(fmt::fmt-header-only SYSTEM BEFORE INTERFACE
  ${PROJECT_BINARY_DIR}/include_roots/fmt)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(ISAL REQUIRED)
find_package(liburing REQUIRED)
find_package(libz REQUIRED)

# Flags and libraries that every folder shares.
add_library(ckptring_options INTERFACE)
target_compile_options(ckptring_options INTERFACE
  -Wall -Wextra -Wconversion -Wshadow -Werror)
if(CKPTRING_SANITIZER STREQUAL "thread")
  target_compile_options(ckptring_options INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
  target_link_options(ckptring_options INTERFACE -fsanitize=thread)
elseif(CKPTRING_SANITIZER STREQUAL "address")
  # Without vptr: it learns through a pipe of its own whether memory may be looked at, and so takes
  # any object for a bad one in the tests that leave the process no descriptors.
  target_compile_options(ckptring_options INTERFACE
    -fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=undefined
    -fno-omit-frame-pointer)
  target_link_options(ckptring_options INTERFACE -fsanitize=address,undefined)
elseif(NOT CKPTRING_SANITIZER STREQUAL "")
  message(FATAL_ERROR "CKPTRING_SANITIZER is '${CKPTRING_SANITIZER}': use thread or address")
endif()
if(CKPTRING_FUZZ)
  # Tells libFuzzer what an input reaches. Its own main comes with the fuzzers' link options.
  target_compile_options(ckptring_options INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(ckptring_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

if(CKPTRING_TORCH)
  include(CkptringTorch)
endif()
