# Finds ISA-L (checksums) and makes ISAL::isal. Debian has no static one.
find_library(CKPTRING_ISAL_LIBRARY isal)
find_path(CKPTRING_ISAL_INCLUDE isa-l/crc.h)
mark_as_advanced(CKPTRING_ISAL_LIBRARY CKPTRING_ISAL_INCLUDE)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(ISAL
  REQUIRED_VARS CKPTRING_ISAL_LIBRARY CKPTRING_ISAL_INCLUDE
  REASON_FAILURE_MESSAGE "On Debian it is the package libisal-dev.")
if(ISAL_FOUND AND NOT TARGET ISAL::isal)
  add_library(ISAL::isal UNKNOWN IMPORTED)
  set_target_properties(ISAL::isal PROPERTIES
    IMPORTED_LOCATION ${CKPTRING_ISAL_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${CKPTRING_ISAL_INCLUDE})
endif()
