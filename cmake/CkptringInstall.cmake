# What `cmake --install` puts where, and the package that find_package(ckptring) finds.
#
# Everything is found relative to where it lies, so that an installed tree can be moved. The one
# absolute path is libtorch's, which belongs to somebody else: the run path of libckptring.so.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/ckptring)
# The library looks for the helper in ../libexec/ckptring, seen from itself.
set(helper_dir ${CMAKE_INSTALL_LIBDIR}/../libexec/ckptring)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/ckptring DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.h")

# Two export sets, so that a consumer of ckptring::core never hears of torch.
install(TARGETS ckptring_core ckptring_core_static ckptring_drain EXPORT ckptringCoreTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT ckptringCoreTargets NAMESPACE ckptring:: DESTINATION ${package_dir})
if(CKPTRING_TORCH)
  set_target_properties(ckptring PROPERTIES INSTALL_RPATH ${CKPTRING_TORCH_DIR}/lib)
  install(TARGETS ckptring EXPORT ckptringTargets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT ckptringTargets NAMESPACE ckptring:: DESTINATION ${package_dir})
endif()

install(TARGETS ckptring-drain RUNTIME DESTINATION ${helper_dir})
if(TARGET ckptring_command)
  install(TARGETS ckptring_command RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/ckptringConfig.cmake.in
  ${PROJECT_BINARY_DIR}/package/ckptringConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/package/ckptringConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES
  ${PROJECT_BINARY_DIR}/package/ckptringConfig.cmake
  ${PROJECT_BINARY_DIR}/package/ckptringConfigVersion.cmake
  ${CMAKE_CURRENT_LIST_DIR}/CkptringLibtorch.cmake
  ${CMAKE_CURRENT_LIST_DIR}/FindISAL.cmake
  ${CMAKE_CURRENT_LIST_DIR}/Findliburing.cmake
  ${CMAKE_CURRENT_LIST_DIR}/Findlibz.cmake
  DESTINATION ${package_dir})
