# The two libraries that are installed.
set(core base os plan ring store stage process save)
set(core_objects)
set(core_targets)
foreach(folder IN LISTS core)
  list(APPEND core_objects $<TARGET_OBJECTS:ckptring_${folder}>)
  list(APPEND core_targets ckptring_${folder})
endforeach()
set(core_system_libraries
  ISAL::isal liburing::uring Threads::Threads ${CMAKE_DL_LIBS})

# ckptring::drain: everything without torch, static. Public face: drain.h, writer.h, error.h ...
add_library(ckptring_drain STATIC ${core_objects})
add_library(ckptring::drain ALIAS ckptring_drain)
target_include_directories(ckptring_drain PUBLIC
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_features(ckptring_drain PUBLIC cxx_std_20)
target_link_libraries(ckptring_drain PRIVATE ${core_system_libraries} libz::z)
if(CKPTRING_SANITIZER)
  target_link_libraries(ckptring_drain PUBLIC $<BUILD_INTERFACE:ckptring_options>)
endif()
set_target_properties(ckptring_drain PROPERTIES EXPORT_NAME drain)

# Tests and tools inside the repository may look at the inner headers too.
add_library(ckptring_internals INTERFACE)
foreach(folder IN LISTS core)
  target_include_directories(ckptring_internals INTERFACE
    ${PROJECT_BINARY_DIR}/include_roots/${folder})
endforeach()
target_link_libraries(ckptring_internals INTERFACE
  ckptring_options ckptring_drain fmt::fmt-header-only nlohmann_json::nlohmann_json Boost::headers)

if(CKPTRING_TORCH)
  add_library(ckptring SHARED ${core_objects} $<TARGET_OBJECTS:ckptring_torch>)
  add_library(ckptring::ckptring ALIAS ckptring)
  target_include_directories(ckptring PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(ckptring PUBLIC cxx_std_20)
  target_link_libraries(ckptring PRIVATE ${core_system_libraries} ZLIB::ZLIB
    PUBLIC ckptring::libtorch)
  set_target_properties(ckptring PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION 0)
endif()
