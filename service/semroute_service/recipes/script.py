"""A launch script: starts each server in turn, registers it once it is healthy, and on a signal,
or when one of them ends, removes what it registered and stops them all."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from semroute_service.recipes.plan import RecipeError

if TYPE_CHECKING:
    from semroute_service.recipes.plan import Job, Plan, Server

_LIFE = r"""
set -u
registry=${SEMROUTE_REGISTRY:-$HOME/.semroute/servers}
host=${SEMROUTE_SERVER_HOST:-$(hostname)}  # by which others reach this machine
files=()
lines=()

stop() {  # whatever ends this script takes back what it registered and ends its servers
  trap '' TERM INT HUP
  local i
  for i in "${!files[@]}"; do
    # Another run may have registered the same server meanwhile; that is its own.
    grep -qsxF -- "${lines[i]}" "${files[i]}" && rm -f -- "${files[i]}"
    rm -f -- "${files[i]}.$$"  # an entry that was never whole
  done
  kill -TERM $(jobs -p) 2>/dev/null
  wait
}
trap stop EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
trap 'exit 129' HUP

free_port() {  # the first from $1 on that nobody has
  python3 - "$1" <<'PYTHON'
import socket, sys
for port in range(int(sys.argv[1]), 65536):
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            continue
    print(port)
    break
PYTHON
}

healthy() {  # does the server on port $1 say so? Asked without a proxy.
  python3 - "$1" 2>/dev/null <<'PYTHON'
import sys, urllib.request
ask = urllib.request.build_opener(urllib.request.ProxyHandler({}))
ask.open(f"http://127.0.0.1:{sys.argv[1]}/health", timeout=5)
PYTHON
}

give_up() {
  echo "$1" >&2
  exit 1
}

register() {  # NAME VARIABLE PORT: whole or not at all, whoever reads meanwhile
  local file=$registry/$1.env line="export $2=http://$host:$3/v1"
  files+=("$file")
  lines+=("$line")
  mkdir -p -- "$registry" && printf '%s\n' "$line" >"$file.$$" && mv -f -- "$file.$$" "$file" ||
    give_up "$1 cannot be registered in $registry"
}

serve() {  # NAME VARIABLE PORT ARGUMENTS...: start it, wait until it is healthy, register it
  local name=$1 variable=$2 port pid
  port=$(free_port "$3")
  [[ -n $port ]] || give_up "$name finds no free port"
  shift 3
  vllm serve "$@" --host 0.0.0.0 --port "$port" &
  pid=$!
  until healthy "$port"; do
    kill -0 "$pid" 2>/dev/null || give_up "$name ended before it was healthy"
    sleep 1 &
    wait "$!"  # a signal is heard while one waits, and not while one sleeps
  done
  kill -0 "$pid" 2>/dev/null || give_up "$name ended; another's server has port $port"
  if [[ -n $variable ]]; then
    register "$name" "$variable" "$port"
  fi
  echo "$name is healthy on port $port"
}
"""

_END = """
wait -n  # for the first that ends, which none should
status=$?
echo "a server ended with status $status" >&2
exit "$((status ? status : 1))"
"""
_HEAD = "# {}: written by semroute servers; change the profile, not this.\n"
_SHEBANG = "#!/usr/bin/env bash\n"


def files(plan: Plan) -> dict[str, str]:
    """A script for each job, for a machine that has its GPUs."""
    check_registered(plan)
    return {f"{job.name}.sh": script(job, _devices(job)) for job in plan.jobs}


def check_registered(plan: Plan) -> None:
    """Raises ``RecipeError`` where semroute could not find a server that registers itself."""
    fixed = [server for server in plan.servers if not server.variable]
    if fixed:
        raise RecipeError(
            f"backends.{server.backend.name}.url: names no environment variable, so semroute "
            f"would not find the server; write ${{{_variable(server)}:-{server.backend.url}}}"
            for server in fixed
        )


def script(job: Job, first: str = "") -> str:
    """The whole script; ``first`` are lines that stand before all others."""
    return f"{_SHEBANG}{first}{body(job)}"


def body(job: Job) -> str:
    """The script for a shell that runs already."""
    serves = "\n".join(map(_serve, job.servers))
    return f"{_HEAD.format(job.name)}{_LIFE}\n{serves}\n{_END}"


def _variable(server: Server) -> str:
    return f"SEMROUTE_{server.name.replace('-', '_').upper()}_URL"


def _devices(job: Job) -> str:
    numbers = ",".join(map(str, job.devices))
    return f"export CUDA_VISIBLE_DEVICES=${{CUDA_VISIBLE_DEVICES-{numbers}}}\n"


def _serve(server: Server) -> str:
    words = [server.name, server.variable, str(server.port), *server.arguments]
    return f"serve {shlex.join(words)}"
