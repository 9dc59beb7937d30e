#!/usr/bin/env bash
# no_cuda_names.sh SOURCE_DIR BINARY...
#
# One build runs with and without CUDA, and beside libtorch's own CUDA libraries, because nothing of
# it has a name of theirs (which would take libtorch's calls), or needs one of them.
set -euo pipefail
source_dir=$1
shift

problems=0
problem() {
  printf 'PROBLEM: %s\n' "$*" >&2
  problems=$((problems + 1))
}

# Names of C, as all of CUDA's are: cudaFree, cuInit, __cudaRegisterFunction, nvmlInit, cublasCreate.
names='^_*(cuda|cublas|cudnn|cufft|cufile|curand|cusolver|cusparse|nccl|nvjit|nvml|nvrtc|nvtx)|^cu[A-Z]'
for binary in "$@"; do
  symbols=$({ nm "$binary"; [[ $binary == *.a ]] || nm --dynamic "$binary"; } |
    awk 'NF >= 2 { print $NF }' | sed 's/@.*//' | sort -u)
  # What nm cannot read has no names at all.
  grep -q ckptring <<< "$symbols" || problem "$binary has no names"
  if found=$(grep -E "$names" <<< "$symbols"); then
    problem "$binary has names of CUDA: ${found//$'\n'/ }"
  fi
  [[ $binary == *.a ]] && continue
  needed=$(readelf --dynamic --wide "$binary" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
  grep -q '^libc\.so' <<< "$needed" || problem "$binary needs nothing"
  if found=$(grep -E '^lib(cu|nv|nccl|torch_cuda|c10_cuda)' <<< "$needed"); then
    problem "$binary needs ${found//$'\n'/ }"
  fi
done

# Headers of ours are included as "folder/header.h".
headers='^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]'
headers+='(cu[a-z_0-9]*\.h|cuda/|nv[a-z_0-9]*\.h|(device|driver|library|vector)_types\.h|(ATen|c10|torch/csrc)/cuda/)'
found=$(cd "$source_dir" && { grep -rlE "$headers" src include || true; } | sort)
[[ $found == src/stage/cuda_runtime.h ]] ||
  problem "src/stage/cuda_runtime.h alone is to include CUDA's headers; these do: ${found//$'\n'/ }"

((problems == 0))
