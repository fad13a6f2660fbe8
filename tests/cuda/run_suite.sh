#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Test programs on the CUDA backend, each as one TAP line: run_suite.sh "name: program [EVERY]"...
# Programs are named by their path under tests/ of the build folder; EVERY: only every n-th case.
# Who calls chooses module, driver and paths in the environment; the backend's module is theirs too.
build=${WEFT_BUILD:-build}
export WEFT_TEST_BACKEND=cuda

n=0 failed=0
for one in "$@"; do
	n=$((n + 1))
	name=${one%%:*}
	set -- ${one#*:}
	if out=$(WEFT_TEST_EVERY=${2:-1} timeout "${SUITE_TIMEOUT:-600}" "$build/tests/$1" 2>&1); then
		echo "ok $n - $name: $(echo "$out" | grep -c '^ok') checks"
	else
		status=$?
		failed=1
		echo "$out" | grep -v '^ok' | tail -n 20 | sed 's/^/# /'
		echo "# $1 ended with $status"
		echo "not ok $n - $name"
	fi
done
echo "1..$n"
exit $failed
