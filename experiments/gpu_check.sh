#!/usr/bin/env bash
# What only a machine with CUDA can show: its tests, the bench, and the full experiment five times.
#
#     bash experiments/gpu_check.sh path/to/cifar10.tgz OUT_DIR
#
# In under eight minutes everything is in OUT_DIR/gpu.json, made by gpu_check.py. Each part has a
# time limit and its output beside that; one that fails is noted, and the next one begins.
# S11_CHECK_DEVICE, _SEEDS, _RUN and _BENCH are for the test of this script: another device, fewer
# seeds, more flags of run.py and of bench.py. PYTHON is the interpreter, by default python3.
set -uo pipefail

if [[ $# -ne 2 || ! -e $1 ]]; then
    echo "gpu_check.sh: give the archive of images, which must exist, and a folder to make" >&2
    exit 2
fi
if [[ -e $2 ]]; then
    echo "gpu_check.sh: $2 exists: choose another folder" >&2
    exit 2
fi
mkdir -p "$2" || exit 2
archive=$(realpath "$1") out=$(realpath "$2")
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

python=${PYTHON:-python3}
device=${S11_CHECK_DEVICE:-cuda}
seeds=${S11_CHECK_SEEDS:-5}
read -ra run_flags <<< "${S11_CHECK_RUN:-}"
read -ra bench_flags <<< "${S11_CHECK_BENCH:-}"
end=450       # the seconds from the beginning after which no part goes on
for_bench=110  # of them, kept for the bench while the seeds run

# part NAME LIMIT COMMAND...: its output in NAME.out and NAME.log; a line in parts.tsv
part() {
    local name=$1 limit=$(($2 < end - SECONDS ? $2 : end - SECONDS)) began=$SECONDS code=124
    shift 2
    echo "$name: up to $limit s"
    if ((limit > 0)); then
        timeout --signal INT --kill-after 10 "$limit" "$@" > "$out/$name.out" 2> "$out/$name.log"
        code=$?
    fi
    printf '%s\t%s\t%s\n' "$name" "$code" $((SECONDS - began)) >> "$out/parts.tsv"
}

if ! "$python" experiments/gpu_check.py --has-all; then
    part venv 60 "$python" -m venv --system-site-packages "$out/venv"  # the machine's own torch
    python=$out/venv/bin/python
    part install 240 "$python" -m pip install -e ".[test]"
fi

part tests 100 "$python" -m pytest -v -m gpu tests/test_gpu.py -p no:cacheprovider \
    -o junit_family=xunit1 --junitxml "$out/tests.xml"
# Decoded once, so that it is in nobody's time.
part images 60 "$python" -c \
    'import sys, s11_fastai; print(s11_fastai.load_images(sys.argv[1]).describe())' "$archive"
for ((seed = 0; seed < seeds; seed++)); do
    # As many as there is time for: shares of it could be too short for each.
    part "seed-$seed" $((end - for_bench - SECONDS)) \
        "$python" experiments/run.py --data "$archive" --device "$device" --seed "$seed" \
        --out "$out/run-$seed" "${run_flags[@]}"
done
# Whole runs are what the seeds have measured.
part bench $end "$python" experiments/bench.py --data "$archive" --device "$device" --json \
    --only input step epoch --rounds 3 "${bench_flags[@]}"

command -v "$python" > /dev/null || python=${PYTHON:-python3}  # no environment could be made
"$python" experiments/gpu_check.py "$out" "$SECONDS"
