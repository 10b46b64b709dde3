#!/bin/sh
# Runs fuzzers, for `make fuzz-run` and `make check`.
#   run.sh probe CC                           whether CC has libFuzzer
#   run.sh FOLDER SEEDS SECONDS JOBS NAME...  each FOLDER/NAME from SEEDS/NAME, JOBS at a time
# What it learns lies in FOLDER/corpus/NAME, what fails in FOLDER/findings; nothing is written to SEEDS.
set -u

probe()
{
	out=$(mktemp) || exit 1
	echo 'int LLVMFuzzerTestOneInput(const void *p, unsigned long n) { return p && n ? 0 : 0; }' |
		$1 -fsanitize=fuzzer,address,undefined -x c - -o "$out" >/dev/null 2>&1
	has=$?
	rm -f "$out"
	exit $has
}

# One fuzzer. Its log goes to the terminal only if it fails.
one()
{
	folder=$1 seeds=$2 seconds=$3 name=$4
	log=$folder/$name.log
	mkdir -p "$folder/corpus/$name" "$folder/findings"
	if "$folder/$name" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=2048 -max_len=8192 -print_final_stats=1 \
		-artifact_prefix="$folder/findings/$name-" "$folder/corpus/$name" "$seeds/$name" >"$log" 2>&1; then
		echo "ok: $name, $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions"
		return 0
	fi
	tail -n 60 "$log"
	echo "FAILED: $name (all of it in $log). Again:"
	finding=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
	echo "  $folder/$name ${finding:-$folder/corpus/$name $seeds/$name}"
	return 1
}

case $1 in
probe)
	probe "$2"
	;;
one)
	shift
	one "$@"
	;;
*)
	folder=$1 seeds=$2 seconds=$3 jobs=$4
	shift 4
	# xargs says 123 if one of them has failed, after all have run.
	printf '%s\n' "$@" | xargs -P "$jobs" -I NAME "$0" one "$folder" "$seeds" "$seconds" NAME
	;;
esac
