#!/usr/bin/env bash
# Makes .venv with everything the tests, the benchmarks and `make serve` need. Runs once; a changed lock runs it again.
# Needs Python 3.11 with venv (installed with apt-get where that is possible) and a source of packages that pip is configured for.
set -euo pipefail
cd "$(dirname "$0")/../.."

lock=tests/requirements.lock
stamp=.venv/.alise-installed
want="$(cat "$lock" pyproject.toml engine_image/vllm_metadata/pyproject.toml | sha256sum | cut -d' ' -f1) $PWD"
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && exit 0

say() { printf '\033[2m[install]\033[0m %s\n' "$*" >&2; }

apt_get() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "Debian packages: $*"
    # Debian updates its lists after every boot; apt-get waits for dpkg's lock, but not for theirs.
    local said tries=0
    until said=$(LC_ALL=C apt-get update -qq 2>&1); do
      tries=$((tries + 1))
      if [[ $said != *"Could not get lock /var/lib/apt/lists"* ]] || [ "$tries" -ge 150 ]; then printf '%s\n' "$said" >&2; exit 1; fi
      [ "$tries" -gt 1 ] || say "another apt-get holds the lists; waiting"
      sleep 2
    done
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=600 "$@" >/dev/null
  else
    say "needs the Debian packages $* (or their like), and cannot install them without root and apt-get"; exit 1
  fi
}

# Not PYTHON, which make sets to the one in .venv.
python=${ALISE_PYTHON:-}
if [ -z "$python" ]; then
  for candidate in .venv/bin/python python3.11 python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then python=$candidate; break; fi
  done
fi
if [ -z "$python" ]; then
  command -v python3 >/dev/null || apt_get python3 python3-venv
  python=python3
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
  say "needs Python 3.11, and $python is $("$python" --version): install it, and name it with ALISE_PYTHON=PATH"; exit 1
fi
# libgomp1: LightGBM does not load without it. libnuma1: vLLM's CPU kernels do not load without it. A compiler and Python's headers: torch.compile and small helpers want them.
missing=()
"$python" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
ldconfig -p 2>/dev/null | grep -q libnuma.so.1 || missing+=(libnuma1)
ldconfig -p 2>/dev/null | grep -q libgomp.so.1 || missing+=(libgomp1)
[ "${#missing[@]}" = 0 ] || apt_get "${missing[@]}"

if [ ! -x .venv/bin/python ]; then say "virtual environment with $("$python" --version)"; "$python" -m venv .venv; fi
started=$SECONDS
say "Python packages from $lock (3 GB installed; about two minutes when nothing is cached)"
install=(.venv/bin/pip install --quiet --disable-pip-version-check --no-deps)
locked=("${install[@]}" --require-hashes)
# The CPU build of torch is not on PyPI: it comes from a find-links folder that pip is configured with, or else from PyTorch's own index. Its
# checksum is in the lock, so it is the same file from either.
torch=$(mktemp)
trap 'rm -f "$torch"' EXIT
sed -n '/^torch==/,/[^\\]$/p' "$lock" > "$torch"
if ! "${locked[@]}" -r "$torch" 2>/dev/null; then
  "${locked[@]}" --index-url "${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}" -r "$torch"
fi
"${locked[@]}" -r "$lock" 2> >(grep -v 'is ignored: it is neither' >&2)
# Our own packages: nothing is downloaded for them, and their build backend is in the lock.
"${install[@]}" --no-build-isolation --no-index ./engine_image/vllm_metadata -e . 2> >(grep -v 'is ignored: it is neither' >&2)
printf '%s' "$want" > "$stamp"
say "done in $((SECONDS - started)) s"
