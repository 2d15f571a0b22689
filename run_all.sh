#!/usr/bin/env bash
# Sets up an environment once, then executes the notebooks (tts/companion/runner.py). Works from any folder, through
# links and as a batch job's copy; bash 3.2 is enough.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail

usage() {
  cat <<'END'
Remake every figure of the notebooks: ./run_all.sh

  ./run_all.sh [--profile NAME] [--only 01,03] [--set NAME=VALUE] [--jobs N]   execute the notebooks
  ./run_all.sh --estimate [the same options]     say what that would make and take, and make nothing
  ./run_all.sh --shard I/N [the same options]    make the I-th of N parts of the results, on whichever machine, and no
                                                 figures; --shard slurm takes both from the job array
  ./run_all.sh collect [the same options] [STORE...]
                                                 merge the stores of the shards, and say what is missing or in conflict
  ./run_all.sh report [the same options]         write the notebooks, as they were executed with these options, as one
                                                 page that needs no network: build/report/index.html
  ./run_all.sh test [--quick | PYTEST OPTIONS]   lint and tests; --quick leaves out what starts kernels and engines
  ./run_all.sh bench [OPTIONS]                   measure the engines
  ./run_all.sh clean [--store]                   remove what was made: environment, build, figures/local, caches;
                                                 the stored samples and scores only with --store
  --profile NAME    parameters from notebooks/profiles/NAME.yaml (default: default)
  --only 01,03      these notebooks alone; 09 and 10 run only where named
  --set NAME=VALUE  one parameter in place of the profile's, such as n_max=128; may be given again
  --jobs N          notebooks side by side (default: 2 where two cores are usable and there is no GPU, else 1)
  --machine KIND    cpu, gpu or portable (no vLLM): which requirements-KIND.txt to install (default: by machine)
  --help            this text

The first run installs everything into .venv, unless the active environment has it already. A profile other than the
default writes its figures to figures/full/, n256/, replay/ or local/. TTS_STORE names another folder for the results.
END
}

fail() { printf 'run_all: %s\n' "$1" >&2; exit "${2:-1}"; }
say() { printf 'run_all: %s\n' "$1" >&2; }
value_of() { [ $# -ge 2 ] || fail "$1 needs a value; see ./run_all.sh --help" 2; printf '%s' "$2"; }

# --- where the repository is, and nobody's settings but its own ----------------------------------------------------
script=${BASH_SOURCE[0]:-}
while [ -L "$script" ]; do
  link=$(readlink "$script")
  case $link in /*) script=$link ;; *) script=$(dirname "$script")/$link ;; esac
done
# A batch system runs a copy of this file from its spool folder, and says where the job was submitted.
root=
for folder in "${script:+$(dirname "$script")}" "${SLURM_SUBMIT_DIR:-}" "${PBS_O_WORKDIR:-}" "${SGE_O_WORKDIR:-}" \
  "${LS_SUBCWD:-}" "$PWD"; do
  if [ -n "$folder" ] && [ -f "$folder/tts/companion/runner.py" ]; then root=$folder; break; fi
done
[ -n "$root" ] || fail "this copy finds no repository: call the run_all.sh in it, or submit the job from its folder" 2
CDPATH='' cd -- "$root"

# Python, pip and git obey variables that module systems, containers and shells set: these would change what is
# installed, imported or asked. Those that say where pip finds packages (index, certificates) stay.
for name in ${!PYTHON@}; do unset "$name"; done
unset PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_REQUIRE_VIRTUALENV PIP_CONSTRAINT PIP_REQUIREMENT \
  PIP_REQUIRE_HASHES PIP_DRY_RUN GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_COMMON_DIR
export PYTHONUTF8=1 PYTHONNOUSERSITE=1 PYTHONPATH="$PWD"
# A user id without an account (containers) has no home, and the caches of pip and the hub need one.
if [ ! -d "${HOME:-}" ] || { [ "$HOME" = / ] && [ ! -w / ]; }; then HOME=$PWD/build/home; fi
export HOME

# --- what is asked for -------------------------------------------------------------------------------------------
command=run profile=default only= machine= with_store=no
options=()
case ${1:-} in collect | report | test | bench | clean) command=$1; shift ;; esac
takes_profile() { case $command in run | collect | report) ;; *) false ;; esac; }
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --machine) machine=$(value_of "$@"); shift 2 ;;
    --profile) takes_profile || break; profile=$(value_of "$@"); shift 2 ;;
    --only) takes_profile || break; only=$(value_of "$@"); shift 2 ;;
    --set) takes_profile || break; value=$(value_of "$@"); options+=(--set "$value"); shift 2 ;;
    --jobs) [ $command = run ] || break; value=$(value_of "$@"); options+=(--jobs "$value"); shift 2 ;;
    --shard) [ $command = run ] || break; value=$(value_of "$@"); options+=(--shard "$value"); shift 2 ;;
    --estimate) [ $command = run ] || break; options+=(--estimate); shift ;;
    --store) [ $command = clean ] || break; with_store=yes; shift ;;
    *) break ;;
  esac
done
case $command-${1:-} in
  run-* | report-* | clean-* | collect--*) [ $# -eq 0 ] || fail "'$1' is not known here; see ./run_all.sh --help" 2 ;;
esac
if [ ! -f "notebooks/profiles/$profile.yaml" ]; then
  fail "profile '$profile' is not known: choose one of $(cd notebooks/profiles && ls ./*.yaml | sed 's|^\./||; s|\.yaml$||' | tr '\n' ' ')" 2
fi

# --- clean -------------------------------------------------------------------------------------------------------
if [ $command = clean ]; then
  # Where there is a repository, only git can show that a path is not committed.
  tracked() {
    command -v git >/dev/null || { echo "git is not installed"; return 1; }
    git -C "$(dirname -- "$1")" --literal-pathspecs ls-files -- "$(basename -- "$1")"
  }
  under_git() (while [ ! -e .git ]; do [ "$PWD" != / ] || exit 1; cd ..; done)
  if under_git && ! why=$(tracked run_all.sh 2>&1); then
    fail "git can't say what is committed here (${why%%$'\n'*}), so nothing is removed"
  fi
  remove() {
    local files=
    [ -e "$1" ] || [ -L "$1" ] || return 0
    if under_git && ! files=$(tracked "$1" 2>/dev/null); then say "$1 is left: git can't say whether it is committed"; return 0; fi
    if [ -n "$files" ]; then say "$1 is committed: left"; return 0; fi
    if [ -n "$(find "$1" -name .git -print -quit)" ]; then say "$1 holds a git repository of its own: left"; return 0; fi
    printf '%8s  %s\n' "$(du -sh -- "$1" | cut -f 1)" "$1"
    rm -rf -- "$1"
  }
  echo "removing:"
  for path in .venv build figures/local .pytest_cache .ruff_cache .hypothesis ./*.egg-info notebooks/.ipynb_checkpoints; do
    remove "$path"
  done
  find . -name .git -prune -o -name __pycache__ -type d -prune -print0 | while IFS= read -r -d '' path; do remove "$path"; done
  if [ $with_store = yes ]; then remove store; elif [ -d store ]; then
    echo "kept: $(du -sh store | cut -f 1)  store (the samples and scores; --store removes it)"
  fi
  [ -z "${TTS_STORE:-}" ] || echo "kept: TTS_STORE=$TTS_STORE lies elsewhere, remove it yourself"
  exit 0
fi

# --- which machine this is ---------------------------------------------------------------------------------------
has_gpu() { # as tts.models.open.has_gpu; a job without a GPU has an empty list, -1 or NoDevFiles here
  case ${CUDA_VISIBLE_DEVICES-0} in [0-9]* | GPU-* | MIG-*) nvidia-smi -L 2>/dev/null | grep '^GPU' >/dev/null ;; *) false ;; esac
}
if [ -z "$machine" ]; then
  if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
    machine=portable why="vLLM does not serve on $(uname -s) $(uname -m)"
  elif has_gpu; then
    machine=gpu why="NVIDIA GPU found"
  elif grep -qw avx2 /proc/cpuinfo; then
    machine=cpu why="no GPU, a CPU with AVX2"
  else
    machine=portable why="no GPU, and a CPU without AVX2"
  fi
else
  why="as asked"
fi
requirements=requirements-$machine.txt
[ -f "$requirements" ] || fail "machine '$machine' is not known: choose cpu, gpu or portable" 2
case $machine in
  portable) engine="this machine runs without vLLM, transformers takes its place" ;;
  cpu) engine="small models run on transformers, others on vLLM" ;;
  *) engine="vLLM is the engine" ;;
esac

# --- an environment with the packages ----------------------------------------------------------------------------
# Lists the pins of $requirements that an environment lacks; needs nothing but the standard library.
lacking='
import importlib.metadata, re, sys
for line in open(sys.argv[1]):
    pin, _, marker = line.partition(";")
    if pin.startswith("#") or (marker and ("!=" in marker) == (sys.platform == "linux")) or "appnope" in pin:
        continue
    name, _, version = pin.strip().partition("==")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found != version:
        print(f"{name}=={version}", f"(has {found})" if found else "")
'
supported='import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))'

find_python() {
  for name in python3.11 python3.12 python3 python; do
    if command -v "$name" >/dev/null && "$name" -c "$supported" >/dev/null 2>&1; then command -v "$name"; return; fi
  done
  fail "needs Python 3.11 or 3.12 with venv and pip: install it (Debian, Ubuntu: apt install python3.11-venv; macOS: brew install python@3.11; or conda env create -f environment.yml)"
}

# What the packages for a GPU need and pip can't install: torch is built for CUDA 13, the models are in bfloat16, and
# Triton compiles kernels when they are first used. Where the machine is named with --machine, it is only said.
check_gpu() { # PYTHON
  local rows row driver capability rest free compiler
  complain() { if [ "$why" = "as asked" ]; then say "$1"; else fail "$1, or use --machine portable"; fi; }
  rows=$(nvidia-smi --query-gpu=driver_version,compute_cap,name --format=csv,noheader 2>/dev/null) || rows=
  while IFS= read -r row; do
    IFS=, read -r driver capability rest <<<"$row"
    case $driver in *[!0-9.]* | '') continue ;; esac # nvidia-smi said something else
    [ "${driver%%.*}" -ge 580 ] ||
      complain "the NVIDIA driver $driver is older than 580, which CUDA 13 needs (nvidia-smi): update it"
    capability=${capability# }
    case $capability in [0-9]*.[0-9]*) [ "${capability%%.*}" -ge 8 ] ||
      complain "${rest# } has compute capability $capability, and bfloat16 needs 8.0: use a GPU of 2020 or later" ;; esac
  done <<<"$rows"
  compiler=${CC:-$(command -v gcc || command -v clang || true)}
  [ -n "$compiler" ] || complain "there is no C compiler, and Triton needs one at run time (Debian, Ubuntu: apt install gcc)"
  "$1" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    complain "$1 has no headers (Python.h), and Triton needs them at run time (Debian, Ubuntu: apt install python3-dev)"
  free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
  [ "${free:-99}" -ge 15 ] || complain "$PWD has $free GiB free, and the packages need 15: free some, or move the repository"
}

set_up() {
  local base stamp log
  stamp="$(cksum <"$requirements") $PWD $machine"
  python=$PWD/.venv/bin/python
  if [ "$(cat .venv/tts-stamp 2>/dev/null)" = "$stamp" ] && "$python" -c '' 2>/dev/null; then return; fi
  say "$why: $engine"
  if ! { "$python" -c "$supported" && "$python" -m pip --version; } >/dev/null 2>&1; then
    base=$(find_python)
    [ $machine != gpu ] || check_gpu "$base"
    [ ! -e .venv ] || say "the environment in .venv does not work, making a new one"
    rm -rf .venv
    "$base" -m venv .venv || fail "$base could not make .venv (Debian, Ubuntu: apt install python3-venv)"
  fi
  rm -f .venv/tts-stamp
  # A killed pip leaves packages without a RECORD, which the next pip takes for installed: remove them.
  for path in .venv/lib/python3*/site-packages/*.dist-info; do
    [ -s "$path/RECORD" ] || rm -rf "$path"
  done
  log=$PWD/.venv/set-up.log
  say "installing $(grep -c '==' "$requirements") packages into .venv: a few minutes (log: .venv/set-up.log)"
  grep -E '^torch==' "$requirements" >.venv/torch.txt
  # Only torch may come from PyTorch's index of CPU builds; pip goes on at once if it can't reach that index.
  case $machine in gpu) index='' ;; *) index='--retries 0 --extra-index-url https://download.pytorch.org/whl/cpu' ;; esac
  # shellcheck disable=SC2086
  install "$log" $index -r .venv/torch.txt
  install "$log" -r "$requirements"
  install "$log" --no-build-isolation -e .
  "$python" -c 'import papermill, torch, transformers, tts' >>"$log" 2>&1 || fail "the environment does not work: see $log"
  printf '%s\n' "$stamp" >.venv/tts-stamp
}

progress() { # of pip, on one line of the terminal
  local line
  while IFS= read -r line; do
    [ -t 2 ] || continue
    case $line in
      Collecting*) line=${line#Collecting } && printf '\r\033[K  fetching %s' "${line%% *}" >&2 ;;
      Installing*) printf '\r\033[K  unpacking' >&2 ;;
    esac
  done
  [ ! -t 2 ] || printf '\r\033[K' >&2
}

explain() { # LOG: what pip said last, and what to do where it finds no build of torch
  local said
  said=$(grep -E '^ *(ERROR|error)' "$1" | tail -n 1)
  case $said in
    *ResolutionImpossible* | *"No matching distribution found for torch=="*)
      said="$said: $(cat .venv/torch.txt) comes from PyTorch's own index, which can't be reached from here: allow it in the proxy, or name a mirror that has it as PIP_EXTRA_INDEX_URL" ;;
  esac
  printf '%s' "$said"
}

install() { # LOG PIP-OPTIONS...: into .venv, whatever a pip.conf says; most modules are never imported, so not compiled
  local log=$1
  shift
  if ! "$python" -m pip --disable-pip-version-check install --no-user --target '' --root / --prefix "$PWD/.venv" \
    --no-deps --no-compile "$@" 2>&1 | tee -a "$log" | progress; then
    fail "pip failed: $(explain "$log") (log: $log; run it again to go on)"
  fi
}

active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
python=
if [ -n "$active" ] && [ "$active" != "$PWD/.venv" ] && [ -x "$active/bin/python" ]; then
  missing=$("$active/bin/python" -c "$lacking" "$requirements" 2>/dev/null || echo "a Python that works")
  if [ -z "$missing" ]; then
    python=$active/bin/python
  else
    say "the active environment lacks $(printf '%s\n' "$missing" | wc -l | tr -d ' ') of $requirements ($(printf '%s\n' "$missing" | head -n 1)): using .venv"
  fi
fi
[ -n "$python" ] || set_up

# --- run ---------------------------------------------------------------------------------------------------------
case $command in
  run) exec "$python" -m tts.companion.runner --profile "$profile" --only "$only" ${options[@]+"${options[@]}"} ;;
  collect)
    exec "$python" -m tts.companion.runner --profile "$profile" --only "$only" ${options[@]+"${options[@]}"} --collect "$@"
    ;;
  report) exec "$python" -m tts.companion.report --profile "$profile" --only "$only" ${options[@]+"${options[@]}"} ;;
  bench) exec "$python" -m bench "$@" ;;
  test)
    "$python" -m ruff check . && "$python" -m ruff format --check . || fail "ruff has complaints (see above)"
    # Without options the whole suite, in two processes, each file in one of them; with options, this process alone.
    quick='not kernel and not engine and not slow and not vllm'
    case $#-${1:-} in 0-) set -- -n 2 --dist loadfile ;; 1---quick) set -- -n 2 --dist loadfile -m "$quick" ;; esac
    exec "$python" -m pytest "$@"
    ;;
esac
