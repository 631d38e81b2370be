#!/usr/bin/env bash
# Pack what scripts/gpu_check.py needs on a machine without network that has torch, transformers and peft already.
#
#     scripts/gpu_wheels.sh [--python 3.12] [--limit-mib 60] OUT_DIR
#
# Leaves wheels for that Python (left out: python3's) on Linux x86-64 in OUT_DIR, in the versions of distill's own
# environment (.venv), with a requirements.txt, and prints how they are installed. Fails where they take more than the
# limit. Tests, headers and file systems that nothing here reads are taken out of the large wheels.
set -euo pipefail

# What training and sampling import, what the tests marked gpu do, and (the last line) their run of all stages, which
# leaves out what finds languages and is large.
PACKAGES=(
    trl datasets pyarrow pandas python-dateutil dill multiprocess xxhash
    pydantic pydantic-core annotated-types typing-inspection typing-extensions
    typer annotated-doc click shellingham rich markdown-it-py mdurl pygments
    pytest pluggy iniconfig
    math-verify latex2sympy2-extended antlr4-python3-runtime rensa reasoning-gym
)

usage() {
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

target=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
limit_mib=60
while [ $# -gt 1 ]; do
    case $1 in
    --python) target=$2 ;;
    --limit-mib) limit_mib=$2 ;;
    *) usage ;;
    esac
    shift 2
done
[ $# = 1 ] && [[ $1 != -* ]] || usage
out=$1
python=$(dirname "$0")/../.venv/bin/python
if [ ! -x "$python" ]; then
    echo "No environment in .venv: run \`make install\` first." >&2
    exit 2
fi
mkdir -p "$out"
if [ -n "$(ls -A "$out")" ]; then
    echo "$out is not empty: name a new folder." >&2
    exit 2
fi

"$python" -c '
import sys
from importlib.metadata import version
print("\n".join(f"{name}=={version(name)}" for name in sys.argv[1:]))
' "${PACKAGES[@]}" >"$out/requirements.txt"

# pip takes each manylinux tag by its own name only.
platforms=(--platform manylinux2014_x86_64)
for minor in $(seq 17 39); do platforms+=(--platform "manylinux_2_${minor}_x86_64"); done
"$python" -m pip download --quiet --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --implementation cp --python-version "$target" "${platforms[@]}" --dest "$out" --requirement "$out/requirements.txt"

"$python" - "$out" <<'PYTHON'
"""Write the large wheels anew without what nobody here reads."""
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

NEEDLESS = {
    "pandas": ("pandas/tests/*",),
    "reasoning_gym": ("reasoning_gym/data/*",),
    "pyarrow": (
        *("pyarrow/tests/*", "pyarrow/include/*", "*.pyx", "*.pxi", "*.pxd", "*_pyarrow_cpp_tests*"),
        *("*_flight*", "*libarrow_s3*", "*_s3fs*"),
        # The linker asks for libarrow_python.so.2600; the other two names are copies of it.
        *("pyarrow/libarrow_python*.so", "pyarrow/libarrow_python*.so.*.*.*"),
    ),
}

for name, patterns in NEEDLESS.items():
    (wheel,) = Path(sys.argv[1]).glob(f"{name}-*.whl")
    smaller = wheel.with_suffix(".partial")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(smaller, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
        gone = {one for one in old.namelist() if any(fnmatch(one, pattern) for pattern in patterns)}
        for info in old.infolist():
            if info.filename in gone:
                continue
            content = old.read(info)
            if info.filename.endswith(".dist-info/RECORD"):
                lines = content.decode().splitlines(keepends=True)
                content = "".join(line for line in lines if line.partition(",")[0] not in gone).encode()
            new.writestr(info, content, zipfile.ZIP_DEFLATED, 9)
    smaller.replace(wheel)
PYTHON

bytes=$(find "$out" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
find "$out" -name '*.whl' -printf '%s %f\n' | sort -rn | awk '{ printf "%7.1f MiB  %s\n", $1 / 1048576, $2 }'
awk -v bytes="$bytes" -v limit="$limit_mib" 'BEGIN { printf "%7.1f MiB in all, of %s\n", bytes / 1048576, limit }'
if [ "$bytes" -gt $((limit_mib * 1048576)) ]; then
    echo "Over the limit." >&2
    exit 1
fi
# datasets takes modules for a user's own, and pickles all they hold, unless the folder is called site-packages.
cat <<EOF

On the machine, in a checkout of distill and with this folder; what is installed there stays as it is:

    site=/tmp/gpu_wheels/site-packages
    python3 -m pip install --no-index --no-deps --find-links $out --requirement $out/requirements.txt --target \$site
    PYTHONPATH=\$site python3 scripts/gpu_check.py
EOF
