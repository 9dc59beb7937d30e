#!/usr/bin/env bash
# without_cuda.sh CMAKE SOURCE_DIR COMPILER
#
# CKPTRING_CUDA=OFF: configures the whole project and builds the folder that is different then, with
# a program that asks it for devices.
set -euo pipefail
cmake=$1 source_dir=$2 compiler=$3
build=$(mktemp -d "${TMPDIR:-/tmp}/ckptring-without-cuda.XXXXXX")
trap 'rm -rf "$build"' EXIT

"$cmake" -S "$source_dir" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_CXX_COMPILER="$compiler" -DCKPTRING_CUDA=OFF -DCKPTRING_TORCH=OFF > "$build/log" 2>&1 ||
  { cat "$build/log"; exit 1; }
"$cmake" --build "$build" --target no_cuda_test
"$build/tests/stage/no_cuda_test"
