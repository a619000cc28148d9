#!/usr/bin/env bash
# Annotate every .jsonl and .parquet file of a folder: bulk.sh BUNDLE INPUTS OUTPUTS
# A file whose answers are there is passed over, and one that was interrupted goes on where it was: run it again.
# Rejected rows are in a file beside the answers, and the exit code is 1 if there are any.
set -euo pipefail
bundle=$1 inputs=$2 outputs=$3
mkdir -p "$outputs"
rejected=0
shopt -s nullglob
for input in "$inputs"/*.jsonl "$inputs"/*.parquet; do
    output=$outputs/$(basename "$input")
    if [ -e "$output" ]; then
        continue
    fi
    hvpnet annotate "$bundle" "$input" "$output" || rejected=1
    [ -e "$output" ] || exit 1 # no answers: an error, not rejected rows
done
exit "$rejected"
