#!/usr/bin/env bash
# Everything about speed on a GPU, in at most eight minutes: each row is printed, and kept in OUT/rows, as it comes.
#
#     OUT=outputs/gpu PHOTOS=FOLDER TEST=FOLDER benchmarks/gpu.sh
#
# Needs restora, spandrel (tests/peers.txt) and, for the time to 29.23 dB, a folder of 400 training photos (PHOTOS) and BSD68 (TEST).
# The same command again goes on with the rows that the time did not reach. TINY=1 runs all of it with small sizes on a CPU, to see
# that it works (SECONDS_IN_ALL=1800, say), and gives no figures.
set -uo pipefail
export PYTHONUNBUFFERED=1
cd "$(dirname "$0")/.."
OUT=${OUT:-outputs/gpu}
PYTHON=${PYTHON:-python}
TINY=${TINY:+--tiny}
TRAINER=gpu
DNCNN_SECONDS=${DNCNN_SECONDS:-180}
SMALL=()
if [ -n "$TINY" ]; then
    TRAINER=cpu DNCNN_SECONDS=20
    SMALL=(network.depth=3 network.channels=8 data.batch_size=4 recipe_batch=null data.val_crop=64 data.test_crop=64)
fi
mkdir -p "$OUT"
end=$((SECONDS + ${SECONDS_IN_ALL:-470}))

run() { # name, seconds at most, command
    local name=$1 most=$2
    shift 2
    local left=$((end - SECONDS))
    ((left < most)) && most=$left
    if ((most < 10)); then
        echo "$name: not measured, the time is over" | tee -a "$OUT/rows"
        return
    fi
    echo "== $name (at most $most s)"
    timeout --signal=TERM "$most" "$@" 2>&1 | tee "$OUT/$name.txt"
    echo "$name: exit code ${PIPESTATUS[0]}, at $SECONDS s" >>"$OUT/rows"
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | tee "$OUT/card" || echo "no GPU found"
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$PWD/$OUT/inductor} # a second run compiles less
case $OUT in /*) export TORCHINDUCTOR_CACHE_DIR=$OUT/inductor ;; esac
left_for_runs=0
if [ -n "${PHOTOS:-}" ] && [ -n "${TEST:-}" ]; then left_for_runs=$((DNCNN_SECONDS + 50)); fi
steps=$((${SECONDS_IN_ALL:-470} - 20 - left_for_runs - 60))
run steps $((steps + 10)) "$PYTHON" benchmarks/gpu.py $TINY --until "$(($(date +%s) + steps))" --traces "$OUT" --rows-file "$OUT/rows"
run shares 60 "$PYTHON" benchmarks/training_gpu.py $TINY --quick --only "" --shares
if ((left_for_runs)); then
    run to_29_23 $((DNCNN_SECONDS + 30)) "$PYTHON" -m restora train experiments=denoise/dncnn_gray "trainer=$TRAINER" data=folder \
        "${SMALL[@]}" "data.source.root=$PHOTOS" "data_dir=$OUT/data" logger.mode=disabled "trainer.max_time=${DNCNN_SECONDS}s" \
        "hydra.run.dir=$OUT/dncnn_gray"
    run bsd68 40 "$PYTHON" -m restora evaluate "checkpoint=$OUT/dncnn_gray" benchmark=bsd68_sigma25 "benchmark.root=$TEST" "output=$OUT/bsd68"
    tail -n 4 "$OUT/bsd68.txt" >>"$OUT/rows"
fi
run degradations 60 "$PYTHON" -m pytest -q -x tests/contracts/test_degradations_on_devices.py
cat "$OUT/rows"
