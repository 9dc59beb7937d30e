# libtorch from the Python package, through an imported target of our own: the package's
# find_package(Torch) demands a CUDA toolchain that this library does not need.
set(CKPTRING_TORCH_DIR "" CACHE PATH "The installed torch package (the folder with include/ and lib/)")
if(NOT CKPTRING_TORCH_DIR)
  file(GLOB found ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
  if(NOT found)
    message(FATAL_ERROR "No libtorch: run tools/setup, or set CKPTRING_TORCH_DIR to an installed "
                        "torch package, or build without it by -DCKPTRING_TORCH=OFF")
  endif()
  list(GET found 0 CKPTRING_TORCH_DIR)
endif()
set(lib ${CKPTRING_TORCH_DIR}/lib)

add_library(ckptring_libtorch INTERFACE)
target_include_directories(ckptring_libtorch SYSTEM INTERFACE
  ${CKPTRING_TORCH_DIR}/include ${CKPTRING_TORCH_DIR}/include/torch/csrc/api/include)
target_link_libraries(ckptring_libtorch INTERFACE ${lib}/libtorch_cpu.so ${lib}/libc10.so)
# libtorch_cpu needs CUDA libraries beside it that we do not link.
target_link_options(ckptring_libtorch INTERFACE
  -Wl,--disable-new-dtags,-rpath,${lib} -Wl,--allow-shlib-undefined)
