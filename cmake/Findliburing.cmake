# Finds liburing and makes liburing::uring; the static one where there is one.
find_library(CKPTRING_URING_LIBRARY NAMES liburing.a uring)
find_path(CKPTRING_URING_INCLUDE liburing.h)
mark_as_advanced(CKPTRING_URING_LIBRARY CKPTRING_URING_INCLUDE)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(liburing
  REQUIRED_VARS CKPTRING_URING_LIBRARY CKPTRING_URING_INCLUDE
  REASON_FAILURE_MESSAGE "On Debian it is the package liburing-dev.")
if(liburing_FOUND AND NOT TARGET liburing::uring)
  add_library(liburing::uring UNKNOWN IMPORTED)
  set_target_properties(liburing::uring PROPERTIES
    IMPORTED_LOCATION ${CKPTRING_URING_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${CKPTRING_URING_INCLUDE})
endif()
