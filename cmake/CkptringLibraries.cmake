# The libraries that are installed. All stand on the same objects, each of which is compiled once.
set(core base os plan ring store stage drain supervise save)
set(core_objects)
foreach(folder IN LISTS core)
  list(APPEND core_objects $<TARGET_OBJECTS:ckptring_${folder}_folder>)
endforeach()
set(core_system_libraries
  ISAL::isal liburing::uring Threads::Threads ${CMAKE_DL_LIBS})

# ckptring_public(TARGET): what every library shows its users.
function(ckptring_public target)
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(${target} PUBLIC cxx_std_20)
endfunction()

# ckptring::core: everything without torch, shared; ckptring::core_static: the same, to be linked
# into something else, a helper executable or a Python extension.
add_library(ckptring_core SHARED ${core_objects})
add_library(ckptring_core_static STATIC ${core_objects})
foreach(kind IN ITEMS core core_static)
  add_library(ckptring::${kind} ALIAS ckptring_${kind})
  ckptring_public(ckptring_${kind})
  set_target_properties(ckptring_${kind} PROPERTIES OUTPUT_NAME ckptring_core EXPORT_NAME ${kind})
endforeach()
target_link_libraries(ckptring_core PRIVATE ${core_system_libraries} ZLIB::ZLIB)
set_target_properties(ckptring_core PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION 0)
target_link_libraries(ckptring_core_static PRIVATE ${core_system_libraries} libz::z)
if(CKPTRING_SANITIZER)
  target_link_libraries(ckptring_core_static PUBLIC $<BUILD_INTERFACE:ckptring_options>)
endif()

# ckptring::drain: what a helper executable of one's own links: drain.h, writer.h, error.h ...
add_library(ckptring_drain INTERFACE)
add_library(ckptring::drain ALIAS ckptring_drain)
target_link_libraries(ckptring_drain INTERFACE ckptring_core_static)
set_target_properties(ckptring_drain PROPERTIES EXPORT_NAME drain)

# Tests and tools inside the repository may look at the inner headers too.
add_library(ckptring_internals INTERFACE)
foreach(folder IN LISTS core)
  target_include_directories(ckptring_internals INTERFACE
    ${PROJECT_BINARY_DIR}/include_roots/${folder})
endforeach()
target_link_libraries(ckptring_internals INTERFACE
  ckptring_options ckptring_core_static fmt::fmt-header-only nlohmann_json::nlohmann_json
  Boost::headers)

if(CKPTRING_TORCH)
  add_library(ckptring SHARED ${core_objects} $<TARGET_OBJECTS:ckptring_torch_folder>)
  add_library(ckptring::ckptring ALIAS ckptring)
  ckptring_public(ckptring)
  target_link_libraries(ckptring PRIVATE ${core_system_libraries} ZLIB::ZLIB
    PUBLIC ckptring::libtorch)
  set_target_properties(ckptring PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION 0)
endif()
