#!/usr/bin/env bash
# Builds the CUDA kernels for the GPU of this machine with the python and torch found here, runs the
# GPU tests, looks for wrong memory accesses and races, and measures; at most 8 minutes in all.
#
#   scripts/gpu_check.sh [--quick] [--out DIR]
#
# --quick  fewer tools and jobs, nothing compiled by torch: about 3 minutes
# --out    folder for logs, gpu.json, gpu.md and summary.md (default: build/gpu-check)
# PYTHON   the python to use (default: python3); it needs torch, pybind11, numpy, safetensors, pytest
#
# Exit codes: 0 all passed, 1 something failed, 2 no GPU here or wrong usage.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

quick=
out=build/gpu-check
while (($#)); do
  case $1 in
    --quick) quick=1 ;;
    --out) out=${2:?--out needs a folder} && shift ;;
    *) echo "unknown option $1; usage: scripts/gpu_check.sh [--quick] [--out DIR]" >&2 && exit 2 ;;
  esac
  shift
done

python=${PYTHON:-python3}
if ! gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -1) ||
  [[ -z $gpu ]]; then
  echo "gpu_check: no NVIDIA GPU here, so nothing was built and nothing was run" >&2
  exit 2
fi
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "gpu_check: $python has no torch that sees the GPU, so nothing was built and run" >&2
  exit 2
fi

mkdir -p "$out"
out=$(realpath "$out")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH=$work/site PYTHONUNBUFFERED=1
export FASTUNROLL_GPU_CHECK=1 # no test is skipped for want of a GPU or of the kernels
failed=
rows=()

# step NAME LIMIT COMMAND...: runs it for at most LIMIT seconds, with a log; tells how it went.
step() {
  local name=$1 limit=$2 start=$SECONDS status=0 result=passed
  shift 2
  echo "== $name"
  timeout "$limit" "$@" >"$out/$name.log" 2>&1 || status=$?
  case $status in
    0) ;;
    124) result="stopped after $limit s" ;;
    *) result="FAILED ($status)" ;;
  esac
  ((status)) && failed=1 && tail -n 15 "$out/$name.log"
  rows+=("$(printf '| %-10s | %-20s | %4d s |' "$name" "$result" $((SECONDS - start)))")
  return $status
}

build() {
  cp -r python "$work/site" &&
    cmake -S . -B "$work/build" -DFASTUNROLL_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=native \
      -DCMAKE_CUDA_FLAGS=-Xptxas=-v \
      -DPython_EXECUTABLE="$("$python" -c 'import sys; print(sys.executable)')" \
      -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" &&
    cmake --build "$work/build" --parallel "$(nproc)" &&
    cmake --install "$work/build" --prefix "$work/site"
}
export -f build
export work python

pytest=("$python" -m pytest -q -W default -p no:cacheprovider)
if step build 180 bash -c build; then
  step tests 150 "${pytest[@]}" tests/gpu
  if command -v compute-sanitizer >/dev/null; then
    tools=(memcheck racecheck)
    [[ $quick ]] && tools=(memcheck)
    for tool in "${tools[@]}"; do
      PYTORCH_NO_CUDA_MEMORY_CACHING=1 step "$tool" 60 compute-sanitizer --tool "$tool" \
        --error-exitcode 99 "${pytest[@]}" tests/gpu/test_gpu_kernels.py \
        -k 'few or shrinkage or (tiles and float32)'
    done
  else
    rows+=("$(printf '| %-10s | %-20s | %4d s |' sanitizer 'not installed' 0)")
  fi
  # What is left of 8 minutes, less the time that the last candidate may take to compile.
  left=$((420 - SECONDS))
  [[ $quick ]] && left=60
  step benchmark $((left + 50)) "$python" -m fastunroll.benchmarks.gpu --output "$out" \
    --targets benchmarks/gpu_targets.toml --seconds "$left" ${quick:+--quick}
fi

{
  echo "$gpu, $(date -u +%F), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
  echo
  echo "| step       | result               | time   |"
  echo "| ---------- | -------------------- | ------ |"
  printf '%s\n' "${rows[@]}"
  # shellcheck disable=SC2016  # the fence of the targets in gpu.md
  [[ -f $out/gpu.md ]] && sed -n '/^```$/,$p' "$out/gpu.md"
} | tee "$out/summary.md"
exit $((${failed:-0}))
