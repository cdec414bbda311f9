#!/usr/bin/env bash
# The benchmarks and tests that need a GPU, without a network; --tiny tries the script on a CPU.
# Its limit is 8 minutes: no benchmark starts after 330 seconds, and the tests follow. A host that compiles
# slowly does not get to all trainings, of which the first are the most important.
#   benchmarks/gpu.sh [--tiny] [FOLDER]      figures go to FOLDER, by default $OUT or gpu-figures
set -uo pipefail
cd "$(dirname "$0")/.."
tiny=()
if [[ ${1:-} == --tiny ]]; then
    tiny=(--tiny --steps 5)
    shift
fi
out=${1:-${OUT:-gpu-figures}}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
python -m benchmarks ceilings attention head train \
    --in-process --rounds 1 --steps 70 --seconds 330 --out "$out" "${tiny[@]}"
measured=$?
[[ ${#tiny[@]} -gt 0 ]] && export LMFT_CUDA_TESTS=cpu
mapfile -t files < <(grep -rl --include='*.py' 'pytest.mark.cuda' tests)
python -m pytest "${files[@]}" -m cuda -n 8 -p no:cacheprovider --timeout 120
tested=$?
exit $((measured || tested))
