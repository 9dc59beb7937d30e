# Finds zlib and makes libz::z, for executables; the static one where there is one. (Debian's cannot
# go into a shared library: that takes ZLIB::ZLIB.)
find_library(CKPTRING_LIBZ_LIBRARY NAMES libz.a z)
find_path(CKPTRING_LIBZ_INCLUDE zlib.h)
mark_as_advanced(CKPTRING_LIBZ_LIBRARY CKPTRING_LIBZ_INCLUDE)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(libz
  REQUIRED_VARS CKPTRING_LIBZ_LIBRARY CKPTRING_LIBZ_INCLUDE
  REASON_FAILURE_MESSAGE "On Debian it is the package zlib1g-dev.")
if(libz_FOUND AND NOT TARGET libz::z)
  add_library(libz::z UNKNOWN IMPORTED)
  set_target_properties(libz::z PROPERTIES
    IMPORTED_LOCATION ${CKPTRING_LIBZ_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${CKPTRING_LIBZ_INCLUDE})
endif()
