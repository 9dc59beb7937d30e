#!/usr/bin/env bash
# run.sh {core|drain|torch} CMAKE BUILD_DIR COMPILER: see CMakeLists.txt.
set -euo pipefail
target=$1 cmake=$2 build_dir=$3 compiler=$4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/ckptring-consumer.XXXXXX")
trap 'rm -rf "$work"' EXIT

# What a stranger's machine does not have must not be what makes this work.
unset CKPTRING_DRAIN CKPTRING_TORCH_DIR LD_LIBRARY_PATH CMAKE_PREFIX_PATH

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1
}

# build NAME [cmake arguments]: configures and builds the consumer in $work/NAME.
build() {
  local name=$1
  shift
  "$cmake" -S "$here/$target" -B "$work/$name" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_PREFIX_PATH="$work/moved here" "$@" &&
    "$cmake" --build "$work/$name"
}

"$cmake" --install "$build_dir" --prefix "$work/installed" > "$work/install.log" ||
  { cat "$work/install.log"; fail "the installation"; }
# An installed tree can be moved, to a path with a space in it as well.
mv "$work/installed" "$work/moved here"

case $target in
  core)
    # A folder that is no torch package must not matter to someone who needs none.
    build build -DCKPTRING_TORCH_DIR=/nonexistent
    "$work/build/torch_free" it 20 "$work/expected"
    # Saved and resumed, by the installed helper, found from the library.
    "$work/build/torch_free" it 9 "$work/losses" "$work/checkpoints"
    "$work/build/torch_free" it 20 "$work/losses" "$work/checkpoints" | tee "$work/said"
    grep -qx "resumed 9" "$work/said" || fail "it should go on from the checkpoint"
    cmp "$work/expected" "$work/losses" || fail "the losses differ from those of one run"
    if ldd "$work/build/torch_free" | grep -E 'libtorch|libc10|libcu'; then
      fail "without libtorch none of these is needed"
    fi
    ;;
  drain)
    # A folder that is no torch package must not matter to someone who needs none.
    build build -DCKPTRING_TORCH_DIR=/nonexistent
    status=0
    "$work/build/store_drain" 2> "$work/said" || status=$?
    cat "$work/said"
    ((status == 64)) || fail "by hand the helper should exit with 64, not $status"
    [[ -s $work/said ]] || fail "by hand the helper should explain itself"
    # Debian has no static ISA-L, and what is linked statically need not be found at the start.
    needed=$(readelf --dynamic --wide "$work/moved here/libexec/ckptring/ckptring-drain" |
      sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort | tr '\n' ' ')
    [[ $needed == "ld-linux-x86-64.so.2 libc.so.6 libisal.so.2 " ]] ||
      fail "the helper should need ISA-L and the C library only, not $needed"
    if ldd "$work/build/store_drain" | grep -E 'libtorch|libc10|libcu'; then
      fail "a drain-only executable must not need these"
    fi
    ;;
  torch)
    if "$cmake" -S "$here/torch" -B "$work/refused" -G Ninja -DCMAKE_CXX_COMPILER="$compiler" \
      -DCMAKE_PREFIX_PATH="$work/moved here" -DCKPTRING_TORCH_DIR=/nonexistent \
      > "$work/refusal" 2>&1; then
      fail "a missing libtorch should be an error"
    fi
    # CMake wraps what it prints.
    tr -s '[:space:]' ' ' < "$work/refusal" | grep -q "Set CKPTRING_TORCH_DIR" ||
      { cat "$work/refusal"; fail "the error should say what to do"; }
    build build
    "$work/build/save_and_load" "$work/checkpoints"
    # The helper that ran was the installed one, found from the library.
    mv "$work/moved here/libexec" "$work/moved here/elsewhere"
    if "$work/build/save_and_load" "$work/more" 2> "$work/said"; then
      fail "without the installed helper a save should fail"
    fi
    cat "$work/said"
    grep -q "ckptring-drain" "$work/said" || fail "the error should name what is missing"
    "$work/moved here/bin/ckptring" inspect "$work/checkpoints/step_7"
    ;;
  *) fail "no such target: $target" ;;
esac
