# ckptring_folder(NAME SOURCES a.cpp ... DEPENDS folder ... LINK lib ...)
#
# Makes the target ckptring_NAME_folder from the sources of src/NAME. Headers are included as
# "NAME/header.h", and only by targets that name the folder in DEPENDS: each folder has an include
# root of its own, so that a dependency in the wrong direction does not compile.
function(ckptring_folder NAME)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;LINK" ${ARGN})
  set(root ${PROJECT_BINARY_DIR}/include_roots/${NAME})
  file(MAKE_DIRECTORY ${root})
  file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR} ${root}/${NAME} SYMBOLIC)

  add_library(ckptring_${NAME}_folder OBJECT ${ARG_SOURCES})
  target_include_directories(ckptring_${NAME}_folder
    PUBLIC ${root} ${PROJECT_SOURCE_DIR}/include)
  target_link_libraries(ckptring_${NAME}_folder PUBLIC ckptring_options)
  # Between object libraries this hands on usage requirements only; the objects themselves are
  # gathered in CkptringLibraries.
  list(TRANSFORM ARG_DEPENDS REPLACE "(.+)" "ckptring_\\1_folder")
  target_link_libraries(ckptring_${NAME}_folder PUBLIC ${ARG_DEPENDS} ${ARG_LINK})
endfunction()
