#!/usr/bin/env bash
# A first look at a GPU in at most eight minutes: whether results are those of a CPU, then everything about speed. Each row is
# printed, and kept in OUT/rows.
#
#     OUT=outputs/gpu PHOTOS=FOLDER TEST=FOLDER benchmarks/gpu.sh
#
# Needs restora's dependencies and pytest; spandrel (tests/peers.txt) for its rows; for the time to 29.23 dB a folder of 400
# training photos (PHOTOS) and BSD68 (TEST), and four of the minutes. The same command again goes on with what the time did not
# reach. TINY=1 runs all of it with small sizes on a CPU, to see that it works (SECONDS_IN_ALL=1800, say), and gives no figures.
set -uo pipefail
OUT=${OUT:+$(realpath -m "$OUT")}
PHOTOS=${PHOTOS:+$(realpath -m "$PHOTOS")}
TEST=${TEST:+$(realpath -m "$TEST")}
cd "$(dirname "$0")/.."
OUT=${OUT:-$PWD/outputs/gpu}
PYTHON=${PYTHON:-$(command -v python || command -v python3)}
TINY=${TINY:+--tiny}
TRAINER=gpu
DNCNN_SECONDS=${DNCNN_SECONDS:-180}
SMALL=()
if [ -n "$TINY" ]; then
    TRAINER=cpu DNCNN_SECONDS=20
    SMALL=(network.depth=3 network.channels=8 data.batch_size=4 recipe_batch=null data.val_crop=64 data.test_crop=64)
fi
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$OUT/inductor} # a second run compiles less
mkdir -p "$OUT"
touch "$OUT/rows"
end=$((SECONDS + ${SECONDS_IN_ALL:-470}))

due() { # name: whether it has not succeeded yet
    ! grep -q "^$1: exit code 0," "$OUT/rows"
}

run() { # name, seconds at most, lines of output to keep as rows, command
    local name=$1 most=$2 kept=$3
    shift 3
    if ! due "$name"; then
        echo "== $name: measured before"
        return
    fi
    local left=$((end - SECONDS))
    ((left < most)) && most=$left
    if ((most < 10)); then
        echo "$name: not measured, the time is over" | tee -a "$OUT/rows"
        return
    fi
    echo "== $name (at most $most s)"
    timeout --signal=TERM --kill-after=10 "$most" "$@" 2>&1 | tee "$OUT/$name.txt"
    local code=${PIPESTATUS[0]}
    tail -n "$kept" "$OUT/$name.txt" >>"$OUT/rows"
    echo "$name: exit code $code, at $SECONDS s" >>"$OUT/rows"
}

if [ -z "$TINY" ] && ! "$PYTHON" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "$PYTHON finds no torch with a CUDA device: set PYTHON, or TINY=1 to try the script on a CPU" >&2
    exit 1
fi
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | tee "$OUT/card" || echo "no GPU found"

run degradations 60 3 "$PYTHON" -m pytest -q -k "a_device" tests/contracts/test_degradations_on_devices.py
run kernels 60 3 "$PYTHON" -m pytest -q tests/unit/test_random_numbers.py tests/unit/networks/test_kernels.py

reserved=20
due shares && reserved=$((reserved + 100))
has_photos=0
if [ -n "$PHOTOS" ] && [ -n "$TEST" ]; then has_photos=1; fi
if ((has_photos)) && due bsd68; then reserved=$((reserved + DNCNN_SECONDS + 80)); fi
steps=$((end - SECONDS - reserved))
# writes its rows itself, one by one, and fails while rows are left for want of time
run steps "$steps" 0 "$PYTHON" benchmarks/gpu.py $TINY --until "$(($(date +%s) + steps - 5))" --traces "$OUT/traces" --rows-file "$OUT/rows"
run shares 100 16 "$PYTHON" benchmarks/training_gpu.py $TINY --quick --only "" --shares
if ((has_photos)); then
    # packing, a first compilation and the held-out photos are beside those seconds; the same folder again resumes
    run to_29_23 $((DNCNN_SECONDS + 60)) 3 "$PYTHON" -m restora train experiments=denoise/dncnn_gray "trainer=$TRAINER" data=folder \
        "${SMALL[@]}" "data.source.root=$PHOTOS" "data_dir=$OUT/data" logger.mode=disabled "trainer.max_time=${DNCNN_SECONDS}s" \
        "hydra.run.dir=$OUT/dncnn_gray"
    if due to_29_23; then
        echo "bsd68: not measured, the training was cut short" | tee -a "$OUT/rows"
    else
        run bsd68 40 4 "$PYTHON" -m restora evaluate "checkpoint=$OUT/dncnn_gray" benchmark=bsd68_sigma25 "benchmark.root=$TEST" \
            "output=$OUT/bsd68"
    fi
fi
cat "$OUT/rows"
