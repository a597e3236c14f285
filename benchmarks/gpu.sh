#!/usr/bin/env bash
# Everything about speed on a GPU, in at most eight minutes: each row is printed, and kept in OUT/rows, as it comes.
#
#     OUT=outputs/gpu PHOTOS=FOLDER benchmarks/gpu.sh
#
# Needs restora, spandrel (tests/peers.txt) and, for the last row, a folder of 400 training photos (PHOTOS) and BSD68 (TEST).
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-outputs/gpu}
PYTHON=${PYTHON:-python}
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
run steps 260 "$PYTHON" benchmarks/gpu.py --traces "$OUT" --rows-file "$OUT/rows"
run degradations 60 "$PYTHON" -m pytest -q -x tests/contracts/test_degradations_on_devices.py
if [ -n "${PHOTOS:-}" ] && [ -n "${TEST:-}" ]; then
    run to_29_23 190 "$PYTHON" -m restora train experiments=denoise/dncnn_gray trainer=gpu data=folder "data.source.root=$PHOTOS" \
        data_dir="$OUT/data" logger.mode=disabled trainer.max_time=180s hydra.run.dir="$OUT/dncnn_gray"
    run bsd68 40 "$PYTHON" -m restora evaluate "checkpoint=$OUT/dncnn_gray" benchmark=bsd68_sigma25 "benchmark.root=$TEST" "output=$OUT/bsd68"
fi
cat "$OUT/rows"
