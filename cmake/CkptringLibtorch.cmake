# ckptring_import_libtorch(DIR): makes ckptring::libtorch from an installed torch package, the
# folder that holds include/ and lib/. Used by the build and by the installed package.
#
# An imported target of our own: the package's find_package(Torch) demands a CUDA toolchain that
# this library does not need.
function(ckptring_import_libtorch DIR)
  add_library(ckptring::libtorch INTERFACE IMPORTED GLOBAL)
  set_target_properties(ckptring::libtorch PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${DIR}/include;${DIR}/include/torch/csrc/api/include"
    INTERFACE_LINK_LIBRARIES "${DIR}/lib/libtorch_cpu.so;${DIR}/lib/libc10.so"
    # libtorch_cpu needs CUDA libraries that lie beside it and that nobody here links.
    INTERFACE_LINK_OPTIONS "-Wl,--allow-shlib-undefined")
endfunction()

# ckptring_torch_problem(OUT DIR): sets OUT to why DIR is no usable torch package, empty if it is.
function(ckptring_torch_problem OUT DIR)
  set(problem "")
  foreach(file include/ATen/ATen.h lib/libtorch_cpu.so lib/libc10.so)
    if(NOT EXISTS "${DIR}/${file}")
      set(problem "'${DIR}' has no ${file}")
      break()
    endif()
  endforeach()
  set(${OUT} "${problem}" PARENT_SCOPE)
endfunction()
